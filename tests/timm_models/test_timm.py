"""timm's checkpoints give timm's own answers; needs the dependency group `timm`, which no other suite has."""

import json
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from image_analysis_worker.decoding.timm import TimmProcessor
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.images import cut_photos
from image_analysis_worker.optimize import optimize
from support.engines import classify, embed, load
from support.samples import CHELSEA, encode, make_image

ARCHITECTURE = "test_resnet"
SIZES_PX = [(640, 480), (481, 641), (96, 96), (97, 300), (30, 40), (1, 1)]
DATA: dict[str, dict[str, Any]] = {
    "usual": {},
    "bilinear": {"interpolation": "bilinear", "crop_pct": 0.95},
    "large crop": {"input_size": [3, 130, 130], "crop_pct": 1.0, "mean": [0.5], "std": [0.5]},
    "squash": {"crop_mode": "squash", "input_size": [3, 100, 140], "crop_pct": 0.9},
    "nearest": {"interpolation": "nearest", "crop_mode": "center"},
}


def make_checkpoint(folder: Path, classes: int = 3, **fields: Any) -> Any:
    """Write a checkpoint with random weights as timm pushes it to the hub; return the model."""
    torch.manual_seed(5)
    model = timm.create_model(ARCHITECTURE, num_classes=classes).eval()
    for name, parameter in model.named_parameters():
        if "fc" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    data = {"input_size": [3, 96, 96], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "num_features": model.num_features,
        "pretrained_cfg": data | {"crop_pct": 0.875, "interpolation": "bicubic", "num_classes": classes},
    }
    (folder / "config.json").write_text(json.dumps(config | fields))
    return model


def answer(model: Any, folder: Path, image: bytes) -> list[float]:
    """Return timm's own confidence in each label."""
    config = json.loads((folder / "config.json").read_text())
    transform = create_transform(**resolve_data_config(config["pretrained_cfg"]), is_training=False)
    with torch.inference_mode(), Image.open(BytesIO(image)) as photo:
        confidences: list[float] = model(transform(photo.convert("RGB"))[None]).softmax(-1)[0].tolist()
    return confidences


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("size_px", SIZES_PX, ids=str)
def test_input_is_the_one_that_timm_makes(name: str, size_px: tuple[int, int]) -> None:
    config = {"pretrained_cfg": {"input_size": [3, 96, 96], **DATA[name]}}
    image = make_image(3, size_px=size_px)

    made = TimmProcessor(config)(image, return_tensors="np")["pixel_values"][0]

    expected = create_transform(**resolve_data_config(config["pretrained_cfg"]), is_training=False)(image).numpy()
    assert made == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_checkpoint_from_the_hub_gives_timms_own_answer(engine: str, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "pets", label_names=["cat", "dog", "bird"])
    images = [CHELSEA.read_bytes(), encode(make_image(1, size_px=(90, 700)))]

    answers = classify(load(tmp_path / "pets", engine=engine), images)

    for found, image in zip(answers, images, strict=True):
        expected = answer(model, tmp_path / "pets", image)
        assert [found[label] for label in ("cat", "dog", "bird")] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_embedding_is_timms_own(engine: str, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "pets")
    image = CHELSEA.read_bytes()
    config = json.loads((tmp_path / "pets" / "config.json").read_text())
    transform = create_transform(**resolve_data_config(config["pretrained_cfg"]), is_training=False)
    with torch.inference_mode(), Image.open(BytesIO(image)) as photo:
        features = model.forward_features(transform(photo.convert("RGB"))[None])
        expected = model.forward_head(features, pre_logits=True)[0].numpy()

    [found] = embed(load(tmp_path / "pets", engine=engine, dtype="float32", min_agreement=0), [image])

    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


def test_checkpoint_of_transformers_wrapper_is_served(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"architectures": ["TimmWrapperForImageClassification"], "model_type": "timm_wrapper"}
    make_checkpoint(tmp_path / "pets", label_names=["cat", "dog", "bird"], **fields)

    assert load(tmp_path / "pets").warm_up().labels == ["cat", "dog", "bird"]


def test_labels_of_imagenet_are_timms_own(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "imagenet", classes=1000)

    labels = load(tmp_path / "imagenet").warm_up().labels

    assert labels == ImageNetInfo("imagenet-1k").label_descriptions()
    assert len(labels) == 1000


def test_optimized_folder_holds_the_labels_that_only_timm_knows(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "imagenet", classes=1000)
    optimize(
        find_checkpoint(str(tmp_path / "imagenet")), tmp_path / "fast", cut_photos(10), source="photos", has_int8=False
    )

    announced = load(tmp_path / "fast", engine="openvino").warm_up()

    config = json.loads((tmp_path / "fast" / "config.json").read_text())
    assert announced.labels == config["label_names"] == ImageNetInfo("imagenet-1k").label_descriptions()
    with closing(load(tmp_path / "imagenet").open_decoder()) as decoder:
        assert np.frombuffer(decoder.decode(CHELSEA.read_bytes()).values, np.uint8).size == 3 * 96 * 96
