"""Train the network on CIFAR-10 and on images of none of its kinds; resume where an earlier run stopped."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundled_model.augmentation import augment, normalize, vary_slightly
from bundled_model.network import Network
from bundled_model.outliers import magnify_details, shuffle_tiles

BATCH = 112
OUTLIERS = 16
"""Images of none of the kinds in each step, besides the batch."""
HELD_OUT = 2000
"""Training images that no step sees: progress is measured on them, and they set the temperature."""
PARTS = 4
"""Parts of a batch, more than cores, so that a core that is busy with something else takes fewer of them."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how fast."""

    steps: int = 3000
    falling_steps: int = 600
    full_steps: int = 150
    warmup_steps: int = 60
    peak_rate: float = 3e-4
    rate_decay: float = 0.85
    """The rate of a block, relative to the next one's: the first blocks need to change the least."""
    weight_decay: float = 0.05
    outlier_weight: float = 1.0
    ema: float = 0.995
    dropped_patches: float = 0.45
    seed: int = 18

    @property
    def falling_from(self) -> int:
        """The step from which on the rate falls; what was learned before it serves a longer plan as well."""
        return self.steps - self.falling_steps

    @property
    def full_from(self) -> int:
        """The step from which on no patch is left out."""
        return self.steps - self.full_steps

    def rate(self, step: int) -> float:
        """Rise, stay, then fall to nothing: the share of the peak rate at a step."""
        rising = min(1.0, (step + 1) / self.warmup_steps)
        falling = min(1.0, (self.steps - step) / self.falling_steps)
        return rising * falling


@dataclass(frozen=True)
class Images:
    """What is trained on: uint8 images (N, 3, h, w), and labels (N,)."""

    images: Tensor
    labels: Tensor
    outliers: Tensor


class Training:
    """The network, its moving average and its optimizer, at some step of a plan."""

    def __init__(self, network: Network, plan: Plan, folder: Path) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network, self.plan, self.folder = network.to(self.device), plan, folder
        self.optimizer = torch.optim.AdamW(_groups(network, plan), lr=0.0, betas=(0.9, 0.99), fused=True)
        self.average = {name: value.clone() for name, value in network.state_dict().items()}
        self.step = 0
        # One thread of torch for each part of a batch: two that share a matrix wait for one another on a busy machine,
        # where a step took 2.7 s instead of 1.1.
        torch.set_num_threads(1)
        is_cpu = self.device.type == "cpu"
        self.parts = PARTS if is_cpu else 1
        self.threads = ThreadPoolExecutor((os.cpu_count() or 1) if is_cpu else 1)
        self.parameters = list(network.parameters())

    def resume(self) -> None:
        """Go on from the last saved step, if there is one that lies on the way of this plan."""
        for name in ("falling.pt", "steady.pt"):
            if not (self.folder / name).exists():
                continue
            state: dict[str, Any] = torch.load(self.folder / name, map_location=self.device, weights_only=True)
            if name == "steady.pt" or state["steps"] == self.plan.steps:
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.average, self.step = state["average"], state["step"]
                return

    def save(self) -> None:
        """Save everything that `resume` needs; a crash leaves the last file or the new one."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "steps": self.plan.steps,
        }
        file = self.folder / ("steady.pt" if self.step <= self.plan.falling_from else "falling.pt")
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def advance(self, batch: "Batch") -> tuple[float, float]:
        """Take one step; give the loss on the ten kinds and on the outliers."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.peak_rate * self.plan.rate(self.step) * group["share"]
        total = torch.zeros(2, device=self.device)
        for losses, gradients in self.threads.map(self._differentiate, batch.split(self.parts)):
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            total += losses
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._update_average()
        self.step += 1
        kinds, outliers = total.tolist()
        return kinds, outliers

    def _differentiate(self, batch: "Batch") -> tuple[Tensor, tuple[Tensor, ...]]:
        """Give the losses, and the gradients of their sum, on one part of a batch."""
        pixels, labels = normalize(batch.pixels).to(self.device), batch.labels.to(self.device)
        kept = None if batch.kept is None else batch.kept.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            scores = self.network(pixels, kept).float().log_softmax(-1)
        is_outlier = labels < 0
        right = scores.gather(1, labels.clamp(min=0)[:, None])[:, 0]
        kinds = -(right * ~is_outlier).sum() / BATCH
        outliers = -(scores.mean(1) * is_outlier).sum() / OUTLIERS
        gradients = torch.autograd.grad(kinds + self.plan.outlier_weight * outliers, self.parameters)
        return torch.stack([kinds, outliers]).detach(), gradients

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


@dataclass(frozen=True)
class Batch:
    """The input of one step: colors from 0 to 1, labels with -1 for outliers, the numbers of the patches to look at."""

    pixels: Tensor
    labels: Tensor
    kept: Tensor | None

    def split(self, parts: int) -> list["Batch"]:
        """Deal the images out to as many parts."""
        kept = [None] * parts if self.kept is None else [self.kept[first::parts] for first in range(parts)]
        return [Batch(self.pixels[first::parts], self.labels[first::parts], kept[first]) for first in range(parts)]


def make_batch(data: Images, network: Network, plan: Plan, step: int) -> Batch:
    """Choose and vary the images of a step; what a step sees depends on its number and the seed alone."""
    torch.manual_seed(plan.seed * 1_000_003 + step)
    chosen = torch.randint(0, len(data.images), (BATCH,))
    slightly, freely = data.images[chosen].chunk(2)
    kinds = [vary_slightly(slightly, network.side_px), augment(freely, network.side_px, smallest_crop=0.4)]
    others = augment(_choose_outliers(data), network.side_px, smallest_crop=0.5)
    labels = torch.cat([data.labels[chosen], torch.full((OUTLIERS,), -1)])
    kept = None
    if step < plan.full_from:
        patches = round(network.grid**2 * (1 - plan.dropped_patches))
        kept = torch.rand(BATCH + OUTLIERS, network.grid**2).argsort(1)[:, :patches]
    return Batch(torch.cat([*kinds, others]), labels, kept)


def _choose_outliers(data: Images) -> Tensor:
    """Three in four from the pool, the others made of training images."""
    made = OUTLIERS // 4
    pool = data.outliers[torch.randint(0, len(data.outliers), (OUTLIERS - made,))]
    sources = data.images[torch.randint(0, len(data.images), (made,))]
    broken = torch.cat([shuffle_tiles(sources[: made - 1]), magnify_details(sources[made - 1 :])])
    return torch.cat([pool, broken])


def _groups(network: Network, plan: Plan) -> list[dict[str, Any]]:
    """Give each parameter its share of the rate, and matrices alone a weight decay."""
    return [
        {
            "params": [parameter],
            "weight_decay": plan.weight_decay if parameter.ndim == 2 else 0.0,
            "share": plan.rate_decay ** _blocks_above(name, len(network.blocks)),
        }
        for name, parameter in network.named_parameters()
    ]


def _blocks_above(name: str, depth: int) -> int:
    """How many blocks lie between a parameter and the classifier, its own included."""
    if name.startswith(("norm.", "classifier.")):
        return 0
    return depth - int(name.split(".")[1]) if name.startswith("blocks.") else depth + 1


@torch.inference_mode()
def predict(network: Network, images: Tensor) -> Tensor:
    """Give the logits (N, labels) of uint8 images (N, 3, h, w), resized as the processor resizes them."""
    side = (network.side_px, network.side_px)
    logits = []
    for batch in torch.split(images, 100):
        resized = F.interpolate(batch.float() / 255, side, mode="bicubic", antialias=True, align_corners=False)
        device = network.cls.device
        with torch.autocast(device.type, torch.bfloat16):
            logits.append(network(normalize(resized.clamp(0, 1)).to(device)).float().cpu())
    return torch.cat(logits)
