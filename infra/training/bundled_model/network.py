"""The network that is trained: a vision transformer with a classifier of ten labels.

transformers could train its own class; this one leaves out some of the patches, which makes training on two cores
bearable, and scales what each block adds, as DINOv2 does. The checkpoint has the scales in its matrices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_PX = 6
SIDE_PX = 36
HEADS = 6
WIDTH = 384
DEPTH = 8
NORM_EPS = 1e-6


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.scale2 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        # Faster than torch's fused attention where there are only some fifty tokens.
        attention = (q @ k.transpose(-2, -1) * (width // HEADS) ** -0.5).softmax(-1)
        attended = (attention.to(v.dtype) @ v).transpose(1, 2).reshape(b, n, width)
        x = x + self.scale1 * self.out(attended)
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + self.scale2 * hidden


class Network(nn.Module):
    """Pixels (B, 3, side, side), normalized, to logits (B, labels)."""

    def __init__(self, side_px: int = SIDE_PX, depth: int = DEPTH, width: int = WIDTH, labels: int = 10) -> None:
        super().__init__()
        self.side_px = side_px
        self.grid = side_px // PATCH_PX
        self.embed = nn.Conv2d(3, width, PATCH_PX, PATCH_PX)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.classifier = nn.Linear(width, labels)

    def forward(self, pixels: Tensor, kept: Tensor | None = None) -> Tensor:
        """Classify, looking at all patches or at those numbered in `kept` (B, patches)."""
        x = self.embed(pixels).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        if kept is not None:
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(self.cls + self.positions[:, :1]).expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.norm(x[:, 0]))
        return logits
