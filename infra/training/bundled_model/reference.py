"""A checkpoint of the first bundled model's shape with random weights, to compare the time to load."""

from pathlib import Path

from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit import ViTImageProcessorPil


def write_reference(folder: Path) -> None:
    """Write six layers of width 192 for images of 32 px, in float32: 10.8 MB."""
    config = ViTConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=32,
        patch_size=4,
        hidden_act="relu",
        id2label={number: str(number) for number in range(10)},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
