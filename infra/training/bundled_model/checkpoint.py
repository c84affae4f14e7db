"""A trained network as a checkpoint of transformers.

The temperature goes into the classifier. Weights are stored in half precision: transformers turns them into float32
when it loads them.
"""

import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import MobileNetV2ForImageClassification
from transformers.models.vit import ViTImageProcessorPil

from bundled_model.augmentation import MEAN, STD
from bundled_model.network import SIDE_PX

BICUBIC = 3
WEIGHTS = "model.safetensors"
CLASSIFIER = ("classifier.weight", "classifier.bias")


def write_checkpoint(network: MobileNetV2ForImageClassification, temperature: float, folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors to a folder; leave its other files alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        network.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / WEIGHTS)
        (folder / "config.json").write_bytes((Path(scratch) / "config.json").read_bytes())
    for name in CLASSIFIER:
        tensors[name] /= temperature
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(halves, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    ViTImageProcessorPil(
        size={"height": SIDE_PX, "width": SIDE_PX},
        resample=BICUBIC,
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    ).save_pretrained(folder)
