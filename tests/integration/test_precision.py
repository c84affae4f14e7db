"""Half the precision gives the same answers, and is used where it pays."""

from contextlib import closing
from pathlib import Path
from shutil import copy

import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, Checkpoint, find_checkpoint
from image_analysis_worker.engines.cores import has_cpu_flag
from image_analysis_worker.engines.torch import TorchEngine
from image_analysis_worker.settings import WorkerSettings
from support.samples import CHELSEA, encode, make_png


def load(dtype: str, checkpoint: Checkpoint | None = None) -> TorchEngine:
    return TorchEngine.load(checkpoint or find_checkpoint(str(BUNDLED_FOLDER)), WorkerSettings(dtype=dtype))


def make_photos() -> list[Image.Image]:
    """Cut the photo into parts that a person would still call photos, and add plain pictures."""
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

    for answer, lone in zip(batched, inputs, strict=True):
        [expected] = model.classify([lone])
        assert [p.label for p in answer] == [p.label for p in expected]
        assert [p.confidence for p in answer] == pytest.approx([p.confidence for p in expected], abs=1e-5)


def test_auto_takes_bfloat16_for_a_large_model_on_hardware_that_has_it(tmp_path: Path) -> None:
    config = ViTConfig(image_size=32, num_hidden_layers=2)
    config.num_labels = 3
    large = ViTForImageClassification(config)
    small = load("auto").warm_up()
    large.save_pretrained(tmp_path)
    copy(BUNDLED_FOLDER / "preprocessor_config.json", tmp_path)

    announced = load("auto", Checkpoint("large", tmp_path, "1")).warm_up()

    has_bfloat16 = torch.cuda.is_available() or has_cpu_flag("avx512_bf16", "amx_bf16")
    assert (small.dtype, announced.dtype) == ("float32", "bfloat16" if has_bfloat16 else "float32")
    assert large.num_parameters() > 10_000_000
