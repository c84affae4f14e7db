"""`just optimize` into a folder that exists: nothing of what was there before is served with the new model."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from image_analysis_worker import optimize as command
from image_analysis_worker.engines import gate
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.gate import Report
from support.engines import load
from support.onnx_models import make_onnx_checkpoint, make_weights
from support.samples import make_png

IMAGES = [make_png(seed) for seed in range(4)]


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure an engine's speed once only."""
    monkeypatch.setattr(gate, "MIN_SPEED_S", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_onnx_checkpoint(tmp_path / "pets", make_weights())


def optimize(folder: Path, output: Path, images: Sequence[bytes] = IMAGES) -> Report:
    return command.optimize(find_checkpoint(str(folder)), output, images, source="images", has_int8=False)


def relabel(folder: Path) -> list[str]:
    """Turn the order of the labels round; return them."""
    config = json.loads((folder / "config.json").read_text())
    labels = list(config["id2label"].values())[::-1]
    fields = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps(config | fields))
    return labels


def test_labels_and_card_of_the_earlier_model_are_replaced(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "fast"
    (folder / "README.md").write_text("# The first one")
    optimize(folder, output)
    labels = relabel(folder)
    (folder / "README.md").unlink()

    optimize(folder, output)

    assert load(output).warm_up().labels == labels
    assert not (output / "README.md").exists()


def test_folder_is_optimized_in_place(folder: Path) -> None:
    (folder / "README.md").write_text("# Pets")

    optimize(folder, folder)

    assert (folder / "README.md").read_text() == "# Pets"
    assert [found.name for found in load(folder).warm_up().engines] == ["openvino float32"]
