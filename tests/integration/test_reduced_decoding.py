"""A JPEG is decoded at a fraction of its size only if the image processor makes the same input of it."""

import json
from contextlib import closing
from io import BytesIO
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.load import open_inputs
from image_analysis_worker.settings import WorkerSettings
from support.checkpoints import make_checkpoint
from support.engines import classify, load
from support.samples import CHELSEA, encode

SQUARE = {"height": 32, "width": 32}
PROCESSORS: dict[str, tuple[dict[str, Any], bool]] = {
    "bicubic": ({"resample": 3}, True),
    "bilinear": ({"resample": 2}, True),
    "nearest": ({"resample": 0}, False),
    "crop without a resize": (
        {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "do_center_crop": True, "crop_size": SQUARE},
        False,
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_photo_gets_the_pipelines_answer_with_every_way_to_resize(name: str, tmp_path: Path) -> None:
    parameters, is_reduced = PROCESSORS[name]
    folder = Path(copytree(BUNDLED_FOLDER, tmp_path / "model", ignore=ignore_patterns("openvino")))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parameters))
    with Image.open(CHELSEA) as photo:
        jpeg = encode(photo.convert("RGB").resize((2400, 1600), Image.Resampling.BICUBIC), "JPEG", quality=92)
    whole = Image.open(BytesIO(jpeg)).convert("RGB")
    classifier = pipeline("image-classification", model=str(folder), dtype=torch.float32)
    expected = {entry["label"]: entry["score"] for entry in classifier(whole, top_k=10)}

    [answer] = classify(load(folder), [jpeg])
    decoders = open_inputs(find_checkpoint(str(folder)), WorkerSettings()).decoders
    off = open_inputs(find_checkpoint(str(folder)), WorkerSettings(reduced_decoding=False)).decoders

    assert answer == pytest.approx(expected, abs=0.01)
    assert (decoders.preparation.reduced_px is not None) == is_reduced
    assert off.preparation.reduced_px is None


@pytest.mark.parametrize("side_px", [97, 299])
def test_odd_size_of_input_is_made_of_a_reduced_picture(tmp_path: Path, side_px: int) -> None:
    size = {"height": side_px, "width": side_px}
    checkpoint = find_checkpoint(str(make_checkpoint(tmp_path / "model", "vit", size=size)))

    assert open_inputs(checkpoint, WorkerSettings()).decoders.preparation.reduced_px == side_px


@pytest.fixture(scope="module", params=[32, 224, 384])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for inputs of so many pixels."""
    folder = tmp_path_factory.mktemp("model") / "model"
    match request.param:
        case 224:
            return make_checkpoint(folder, "vit")
        case 384:
            return make_checkpoint(folder, "convnext", size={"shortest_edge": 384})
    return BUNDLED_FOLDER


def make_photo(megapixels: int) -> bytes:
    """Enlarge the photo and add a sensor's noise."""
    with Image.open(CHELSEA) as photo:
        width_px = round((megapixels * 1e6 * photo.width / photo.height) ** 0.5)
        large = photo.convert("RGB").resize((width_px, round(megapixels * 1e6 / width_px)), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 5, (large.height, large.width, 1))
    return encode(Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8)), "JPEG", quality=90)


@pytest.mark.parametrize("megapixels", [1, 6, 12])
def test_camera_photo_gets_the_pipelines_answer_at_every_size_of_input(checkpoint: Path, megapixels: int) -> None:
    jpeg = make_photo(megapixels)
    classifier = pipeline("image-classification", model=str(checkpoint), dtype=torch.float32)
    expected = {entry["label"]: entry["score"] for entry in classifier(Image.open(BytesIO(jpeg)), top_k=10)}

    [answer] = classify(load(checkpoint), [jpeg])
    inputs = [
        open_inputs(find_checkpoint(str(checkpoint)), WorkerSettings(reduced_decoding=is_on)) for is_on in (True, False)
    ]
    levels = []
    for each in inputs:
        with closing(each.decoders.open()) as decoder:
            levels.append(each.stack([decoder.decode(jpeg)]).astype(float))

    assert inputs[0].decoders.preparation.reduced_px is not None
    assert answer == pytest.approx(expected, abs=0.01)
    assert max(answer, key=answer.__getitem__) == max(expected, key=expected.__getitem__)
    assert abs(levels[0] - levels[1]).mean() < 2
