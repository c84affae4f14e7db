"""Train the network on CIFAR-10 and on images of none of its kinds; resume where an earlier run stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MobileNetV2ForImageClassification

from bundled_model.augmentation import augment, mirror, normalize, sharpen, shift
from bundled_model.network import SIDE_PX
from bundled_model.outliers import magnify_details, shuffle_tiles

BATCH = 116
OUTLIERS = 12
"""Images of none of the kinds in each step, besides the batch."""
FREELY = BATCH // 2
"""Images of a batch that are varied like other people's photos; the others are shifted and mirrored only."""
PARTS = 4
"""Parts of a batch, one after another: as large as caches like them, and each normalized by itself."""
HELD_OUT = 2000
"""Training images that no step sees: progress is measured on them, and they set the temperature."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how fast."""

    epochs: int = 10
    warmup_steps: int = 50
    rate: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    outlier_weight: float = 1.0
    sharpened: float = 0.3
    """The share of the freely varied images, and of the outliers, that become as sharp as photos are."""
    seed: int = 18

    def rate_at(self, step: int, steps: int) -> float:
        """Return the rate at a step: it rises briefly, then falls linearly to nothing."""
        return self.rate * min((step + 1) / self.warmup_steps, (steps - step) / (steps - self.warmup_steps), 1.0)


@dataclass(frozen=True)
class Images:
    """What is trained on: uint8 images (N, 3, 32, 32), and labels (N,)."""

    images: Tensor
    labels: Tensor
    outliers: Tensor

    @property
    def steps(self) -> int:
        """Steps of an epoch; what is left of the last batch is left out."""
        return len(self.images) // BATCH


@dataclass(frozen=True)
class Batch:
    """The input of one step: normalized pixels (N, 3, side, side), and labels (N,) with -1 for outliers."""

    pixels: Tensor
    labels: Tensor

    def split(self, parts: int) -> list["Batch"]:
        """Deal the images out to as many parts."""
        return [Batch(self.pixels[first::parts], self.labels[first::parts]) for first in range(parts)]


class Training:
    """The network and its optimizer, at some step of a plan."""

    def __init__(self, network: MobileNetV2ForImageClassification, plan: Plan, epoch_steps: int, folder: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network
        module: nn.Module = network
        module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.plan, self.file = plan, folder / "training.pt"
        self.steps = plan.epochs * epoch_steps
        matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in network.parameters() if parameter.ndim == 1]
        groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)
        self.step = 0

    def resume(self) -> None:
        """Go on from the last saved step, if there is one."""
        if not self.file.exists():
            return
        state: dict[str, Any] = torch.load(self.file, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self) -> None:
        """Save everything that `resume` needs; a crash leaves the last file or the new one."""
        state = {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def advance(self, batch: Batch) -> tuple[float, float]:
        """Take one step; give the loss on the ten kinds and on the outliers."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.step, self.steps)
        self.network.train()
        total = torch.stack([self._differentiate(part) for part in batch.split(PARTS)]).sum(0)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        kinds, outliers = total.tolist()
        return kinds, outliers

    def _differentiate(self, batch: Batch) -> Tensor:
        """Add one part's gradients; give its share of the losses on the kinds and on the outliers."""
        pixels = batch.pixels.to(self.device, memory_format=torch.channels_last)
        labels = batch.labels.to(self.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(pixels).logits.float()
        is_kind = labels >= 0
        kinds = F.cross_entropy(logits[is_kind], labels[is_kind], label_smoothing=self.plan.smoothing) / PARTS
        outliers = -logits[~is_kind].log_softmax(1).mean() / PARTS
        (kinds + self.plan.outlier_weight * outliers).backward()
        return torch.stack([kinds, outliers]).detach()


def make_batch(data: Images, plan: Plan, step: int) -> Batch:
    """Choose and vary the images of a step; what a step sees depends on its number and the seed alone."""
    epoch, place = divmod(step, data.steps)
    torch.manual_seed(plan.seed * 1_000_003 + epoch)
    chosen = torch.randperm(len(data.images))[place * BATCH : (place + 1) * BATCH]
    torch.manual_seed(plan.seed * 2_000_003 + step)
    images = data.images[chosen]
    freely = augment(images[:FREELY], smallest_crop=0.4)
    # Each image is mirrored in every other epoch (Jordan, 2024): it is seen both ways as often, whatever chance says.
    is_mirrored = (chosen[FREELY:] + epoch) % 2 == 0
    slightly = shift(mirror(images[FREELY:], is_mirrored)).float() / 255
    others = augment(_choose_outliers(data), smallest_crop=0.5)
    labels = torch.cat([data.labels[chosen], torch.full((OUTLIERS,), -1)])
    pixels = enlarge(torch.cat([freely, slightly, others]))
    is_varied = torch.ones(len(pixels), dtype=torch.bool)
    is_varied[FREELY:BATCH] = False
    return Batch(normalize(sharpen(pixels, is_varied, plan.sharpened)), labels)


def _choose_outliers(data: Images) -> Tensor:
    """Three in four from the pool, the others made of training images."""
    made = OUTLIERS // 4
    pool = data.outliers[torch.randint(0, len(data.outliers), (OUTLIERS - made,))]
    sources = data.images[torch.randint(0, len(data.images), (made,))]
    broken = torch.cat([shuffle_tiles(sources[: made // 2]), magnify_details(sources[made // 2 :])])
    return torch.cat([pool, broken])


def enlarge(images: Tensor) -> Tensor:
    """Resize colors from 0 to 1, (N, 3, h, w), to the network's side, as the processor resizes them."""
    return F.interpolate(images, (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True).clamp_(0, 1)


@torch.inference_mode()
def predict(network: MobileNetV2ForImageClassification, images: Tensor) -> Tensor:
    """Give the logits (N, labels) of uint8 images (N, 3, h, w)."""
    network.eval()
    pixels = (normalize(enlarge(batch.float() / 255)).to(network.device) for batch in torch.split(images, 100))
    return torch.cat([network(batch).logits.cpu() for batch in pixels])
