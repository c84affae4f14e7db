"""The image processor of every architecture gives the pipeline's answers, and no image exceeds the decoder's limits."""

import os
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import pipeline

from image_analysis_common.job_errors import JobError
from image_analysis_worker.decoding.decoder import Decoder
from image_analysis_worker.decoding.process import MEMORY_BASE_BYTES, MEMORY_BYTES_PER_PIXEL
from support.bombs import BOMBS, LIMIT_PX, narrow_png
from support.checkpoints import ARCHITECTURES, make_checkpoint
from support.engines import load
from support.memory import forget_peak, peak_bytes, resident_bytes
from support.samples import CHELSEA, encode, make_image

REACHING_THE_WORKER = [
    name for name, bomb in BOMBS.items() if bomb.refusal is None and bomb.end != ("FAILED", "job_timeout")
]
"""Long enough to never matter: test_decoding_process tests the time limit, which is the same for all processors."""

PROCESSES_BYTES = 128 * 2**20
"""Memory of the decoders' processes before their first image."""

SQUARE = {"height": 224, "width": 224}
BOMBED = ("ConvNeXt", "ResNet", "DINOv2", "CLIP")
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ConvNeXt": ("convnext", {}),
    "ResNet": ("resnet", {}),
    "DINOv2": ("dinov2", {}),
    "CLIP": ("clip", {}),
    "shortest edge, no crop": ("dinov2", {"size": {"shortest_edge": 224}, "do_center_crop": False}),
    "no resize, crop": ("clip", {"do_resize": False, "crop_size": SQUARE}),
    "no resize": ("resnet", {"do_resize": False}),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gets_the_pipelines_own_answer(architecture: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture)
    expected = pipeline("image-classification", model=str(folder))
    images = [CHELSEA.read_bytes(), encode(make_image(1, size_px=(90, 700))), encode(make_image(2, size_px=(3, 3)))]

    model = load(folder)
    with closing(model.open_decoder()) as decoder:
        answers = [model.classify([decoder.decode(image)])[0] for image in images]

    for image, predictions in zip(images, answers, strict=True):
        confidences = {entry["label"]: entry["score"] for entry in expected(Image.open(BytesIO(image)).convert("RGB"))}
        assert {p.label: p.confidence for p in predictions} == pytest.approx(confidences, abs=1e-3)


@pytest.fixture(scope="module", params=PARAMETERS)
def processor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def decoder(processor: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    architecture, parameters = PARAMETERS[processor]
    folder = make_checkpoint(tmp_path_factory.mktemp("model") / "model", architecture, **parameters)
    with closing(load(folder, decode_timeout_seconds=60).open_decoder()) as decoder:
        decoder.decode(encode(make_image(1)))
        yield decoder


def end(decoder: Decoder, image: bytes) -> tuple[str, str | None]:
    try:
        decoder.decode(image)
    except JobError as error:
        return "FAILED", error.code
    return "COMPLETED", None


UNSUPPORTED = ("FAILED", "unsupported_dimensions")
NARROW = {f"{width} x {height}": (width, height) for width, height in ((1, 2000), (1, 4000), (4000, 1), (1, 50_000))}


def measure(decoder: Decoder, image: bytes) -> tuple[tuple[str, str | None], int]:
    """Return the outcome of an image, and the memory that this process and the decoders' took for it."""
    forget_peak(os.getpid())
    before = resident_bytes(os.getpid())
    return end(decoder, image), peak_bytes(os.getpid()) - before


SMALL_BYTES = 64 * 2**20
LIMIT_BYTES = MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * LIMIT_PX + PROCESSES_BYTES


@pytest.mark.parametrize("name", NARROW)
def test_narrow_image_fails_if_it_would_be_enlarged_without_limit(processor: str, decoder: Decoder, name: str) -> None:
    ended, took_bytes = measure(decoder, narrow_png(*NARROW[name]))

    assert ended == (("COMPLETED", None) if processor.startswith("no resize") else UNSUPPORTED)
    assert took_bytes < SMALL_BYTES
    assert end(decoder, encode(make_image(2))) == ("COMPLETED", None)


@pytest.mark.parametrize("processor", [*BOMBED, "no resize"], indirect=True)
@pytest.mark.parametrize("name", REACHING_THE_WORKER)
def test_bomb_ends_within_bounds(processor: str, decoder: Decoder, name: str) -> None:
    bomb = BOMBS[name]
    is_wide = name == "a BMP that skips 255 times its size" or (processor == "no resize" and "megapixels" in name)

    ended, took_bytes = measure(decoder, bomb.make())

    assert ended == (UNSUPPORTED if is_wide else bomb.end)
    assert took_bytes < LIMIT_BYTES
    assert end(decoder, encode(make_image(2))) == ("COMPLETED", None)


@pytest.mark.parametrize("size_px", [(640, 480), (1600, 320), (100, 1600), (5, 7), (1, 1)])
def test_photo_and_panorama_complete(decoder: Decoder, size_px: tuple[int, int]) -> None:
    assert end(decoder, encode(make_image(3, size_px=size_px))) == ("COMPLETED", None)


@pytest.mark.parametrize("processor", ["shortest edge, no crop", "no resize"], indirect=True)
def test_input_far_larger_than_usual_fails_before_the_model_runs(decoder: Decoder) -> None:
    largest, too_large = (224 * 16, 224), (224 * 16 + 16, 224)

    assert [end(decoder, encode(make_image(4, size_px=size_px))) for size_px in (largest, too_large)] == [
        ("COMPLETED", None),
        UNSUPPORTED,
    ]
