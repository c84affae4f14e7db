"""Which zero-shot checkpoints are accepted, and which are refused in one line."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from image_analysis_common.startup import StartupError
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.models import load_served
from image_analysis_worker.optimize import optimize
from image_analysis_worker.settings import WorkerSettings
from support.zero_shot import ZERO_SHOT, make_zero_shot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zero_shot(tmp_path_factory.mktemp("models") / "clip", "clip")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(copytree(made, tmp_path / "model"))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(StartupError) as caught:
        load_served(find_checkpoint(str(folder)), WorkerSettings(**settings))
    [line] = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine": "openvino"}, "not with ENGINE=openvino and DTYPE=auto"),
        ({"dtype": "int8"}, "not with ENGINE=auto and DTYPE=int8"),
    ],
)
def test_other_engines_are_refused(made: Path, settings: dict[str, str], reason: str) -> None:
    assert refusal(made, **settings) == (
        f"clip is a zero-shot model, which runs on torch in float32 or bfloat16 only: {reason}."
    )


def test_optimizing_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="zero-shot model, which runs on torch only"):
        optimize(find_checkpoint(str(made)), tmp_path, [], source="", has_int8=False)


@pytest.mark.parametrize("family", ZERO_SHOT)
def test_other_tokenizer_is_another_revision(tmp_path: Path, family: str) -> None:
    folder = make_zero_shot(tmp_path / family, family)
    before = find_checkpoint(str(folder)).revision
    [tokenizer] = [path for name in ("tokenizer.json", "spiece.model") if (path := folder / name).is_file()]

    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")

    assert find_checkpoint(str(folder)).revision != before


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("model.safetensors", "without safetensors"),
        ("preprocessor_config.json", "image processor does not start"),
        ("tokenizer.json", "without a tokenizer"),
    ],
)
def test_incomplete_checkpoint_is_refused(folder: Path, missing: str, reason: str) -> None:
    (folder / missing).unlink()

    assert reason in refusal(folder)


def test_missing_weights_are_refused_instead_of_answered_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert "lacks weights" in refusal(folder)


def test_model_for_images_of_any_size_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["Siglip2Model"]}
    (folder / "config.json").write_text(json.dumps(config))

    assert "images of any size (NaFlex), which is not supported" in refusal(folder)
