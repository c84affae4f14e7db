"""bfloat16 gives the same answers as float32, and `auto` uses it only if it is faster."""

from contextlib import closing
from pathlib import Path
from shutil import copy

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, Checkpoint, find_checkpoint
from image_analysis_worker.engines.cores import has_cpu_flag
from image_analysis_worker.engines.engine import Engine
from image_analysis_worker.engines.gate import answer, decode_all
from image_analysis_worker.engines.load import Choice, Networks, load_engine, load_torch, open_inputs
from image_analysis_worker.engines.torch import LARGE_PARAMETERS
from image_analysis_worker.settings import WorkerSettings
from support.samples import CHELSEA, encode, make_png

HAS_BFLOAT16 = torch.cuda.is_available() or has_cpu_flag("avx512_bf16", "amx_bf16")


def load(dtype: str, checkpoint: Checkpoint | None = None) -> Engine:
    """Load a model on torch; bfloat16 without the gate, which refuses it for the bundled model."""
    settings = WorkerSettings(engine="torch", dtype=dtype, min_agreement=0 if dtype == "bfloat16" else 0.995)
    return load_engine(checkpoint or find_checkpoint(str(BUNDLED_FOLDER)), settings)


def make_photos() -> list[Image.Image]:
    """Cut the photo into parts that still look like photos, and add plain images."""
    photo = Image.open(CHELSEA).convert("RGB")
    width_px, height_px = photo.size
    crops = [
        photo.crop((left, top, left + width_px // 2, top + height_px // 2))
        for left in range(0, width_px // 2, 60)
        for top in range(0, height_px // 2, 50)
    ]
    return [photo, photo.rotate(90, expand=True), photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), *crops]


def test_bfloat16_names_the_same_label_as_float32() -> None:
    exact, half = load("float32"), load("bfloat16")
    with closing(exact.open_decoder()) as decoder:
        inputs = [decoder.decode(encode(photo)) for photo in make_photos()]

    for pixels in inputs:
        [expected], [answer] = (model.classify([pixels]) for model in (exact, half))
        assert answer[0].label == expected[0].label
        assert answer[0].confidence == pytest.approx(expected[0].confidence, abs=0.02)


def test_batch_gives_each_image_the_answer_that_it_gets_alone() -> None:
    model = load("float32")
    with closing(model.open_decoder()) as decoder:
        inputs = [decoder.decode(make_png(seed)) for seed in range(8)]

    batched = model.classify(inputs)

    for found, lone in zip(batched, inputs, strict=True):
        [expected] = model.classify([lone])
        assert [p.label for p in found] == [p.label for p in expected]
        assert [p.confidence for p in found] == pytest.approx([p.confidence for p in expected], abs=1e-5)


def make_large(folder: Path, bias: list[float]) -> Checkpoint:
    """Write a model with random weights, large enough for bfloat16; `bias` is added to its three logits."""
    config = ViTConfig(image_size=32, num_hidden_layers=2)
    config.num_labels = 3
    torch.manual_seed(7)
    large = ViTForImageClassification(config)
    large.classifier.bias.data = torch.tensor(bias)
    large.save_pretrained(folder)
    copy(BUNDLED_FOLDER / "preprocessor_config.json", folder)
    assert large.num_parameters() > LARGE_PARAMETERS
    return Checkpoint("large", folder, "1")


CLEAR = [9.0, 0.0, 0.0]
ROUNDED_AWAY = [1000.0, 1000.0, 1000.0]
"""bfloat16 keeps 8 bits: near 1000, logits are multiples of 4."""


def test_auto_uses_bfloat16_for_a_large_model_on_hardware_with_bfloat16(tmp_path: Path) -> None:
    announced = load("auto", make_large(tmp_path, CLEAR)).warm_up()

    assert load("auto").warm_up().dtype == "float32"
    assert announced.dtype == ("bfloat16" if HAS_BFLOAT16 else "float32")
    assert [found.name for found in announced.engines] == (["torch float32", "torch bfloat16"] if HAS_BFLOAT16 else [])


def test_auto_uses_float32_for_a_large_model_whose_answers_change_with_bfloat16(tmp_path: Path) -> None:
    checkpoint = make_large(tmp_path, ROUNDED_AWAY)

    announced = load("auto", checkpoint).warm_up()
    unchecked = load_engine(checkpoint, WorkerSettings(engine="torch", min_agreement=0)).warm_up()

    assert announced.dtype == "float32"
    assert unchecked.dtype == ("bfloat16" if HAS_BFLOAT16 else "float32")


def test_comparison_that_takes_too_long_ends_in_float32(tmp_path: Path) -> None:
    checkpoint = make_large(tmp_path, CLEAR)
    inputs = open_inputs(checkpoint, WorkerSettings())

    network, measured = load_torch(Networks(inputs, is_converted=False), inputs, 0.995, limit_s=0)

    assert (network.precision, measured) == ("float32", [])


def test_comparison_is_given_up_between_two_batches() -> None:
    inputs = open_inputs(find_checkpoint(str(BUNDLED_FOLDER)), WorkerSettings())
    network = Networks(inputs, is_converted=False).make(Choice("torch", "float32"))
    images = decode_all(inputs, [make_png(1)])

    with pytest.raises(TimeoutError):
        answer(network, inputs, images, is_timed=False, until_s=0)
