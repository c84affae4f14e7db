"""Tiny checkpoints of many architectures with random weights, each with the image processor of its family."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    CLIPConfig,
    ConvNextConfig,
    DeiTConfig,
    Dinov2Config,
    EfficientNetConfig,
    MobileViTConfig,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)
from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [8, 16]}
SQUARE = {"height": 224, "width": 224}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "vit": lambda: ViTConfig(image_size=224, **LAYERS),
    "deit": lambda: DeiTConfig(image_size=224, architectures=["DeiTForImageClassification"], **LAYERS),
    "swin": lambda: SwinConfig(image_size=224, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7),
    "beit": lambda: BeitConfig(image_size=224, **LAYERS),
    "convnext": lambda: ConvNextConfig(num_stages=2, **STAGES),
    "resnet": lambda: ResNetConfig(embedding_size=8, layer_type="basic", **STAGES),
    "efficientnet": lambda: EfficientNetConfig(width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128),
    "dinov2": lambda: Dinov2Config(image_size=224, patch_size=14, mlp_ratio=1, **LAYERS),
    "clip": lambda: CLIPConfig(
        vision_config={"image_size": 224, "patch_size": 32, **LAYERS}, text_config={"vocab_size": 100, **LAYERS}
    ),
    "mobilevit": lambda: MobileViTConfig(image_size=256, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8] * 7),
}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {"size": SQUARE}),
    "deit": ("DeiT", {"size": {"height": 256, "width": 256}, "crop_size": SQUARE, "do_center_crop": True}),
    "swin": ("ViT", {"size": SQUARE, "resample": 3}),
    "beit": ("Beit", {"size": {"height": 256, "width": 256}, "crop_size": SQUARE, "do_center_crop": True}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
    "resnet": ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}),
    "efficientnet": ("EfficientNet", {"size": SQUARE, "rescale_offset": True, "include_top": True}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}, "crop_size": SQUARE, "do_center_crop": True, "resample": 3}),
    "clip": ("CLIP", {"size": {"shortest_edge": 224}, "crop_size": SQUARE, "do_center_crop": True}),
    "mobilevit": ("MobileViT", {"size": {"shortest_edge": 288}, "crop_size": {"height": 256, "width": 256}}),
}
ARCHITECTURES = tuple(CONFIGS)


def make_checkpoint(
    folder: Path, architecture: str, labels: Sequence[str] = ("cat", "dog", "bird"), **parameters: Any
) -> Path:
    """Write a checkpoint with random weights; `parameters` replace those of its image processor."""
    torch.manual_seed(7)
    config = CONFIGS[architecture]()
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in config.id2label.items()}
    model = AutoModelForImageClassification.from_config(config)
    # Random weights give almost the same answer to every image: these make the answers differ.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    family, usual = PROCESSORS[architecture]
    processor = get_image_processor_class_from_name(f"{family}ImageProcessorPil")
    processor(**usual | parameters).save_pretrained(folder)
    return folder
