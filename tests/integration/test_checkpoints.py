"""Folders that are no image-classification checkpoint, and those that are."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decoder import Pixels
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, Checkpoint, find_checkpoint
from image_analysis_worker.engines.torch import TorchEngine
from image_analysis_worker.settings import WorkerSettings

ZEROS = Pixels((3, 32, 32), bytearray(4 * 3 * 32 * 32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(copytree(BUNDLED_FOLDER, tmp_path / "model"))


def configure(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def load(folder: Path) -> TorchEngine:
    return TorchEngine.load(find_checkpoint(str(folder)), WorkerSettings())


def test_model_without_a_classification_head_is_refused(folder: Path) -> None:
    configure(folder, architectures=["ViTModel"])

    with pytest.raises(StartupError, match=r"not an image-classification checkpoint: it is \['ViTModel'\]"):
        load(folder)


def test_regression_model_is_refused(folder: Path) -> None:
    configure(folder, problem_type="regression")

    with pytest.raises(StartupError, match="it gives numbers, not labels"):
        load(folder)


def test_missing_weights_are_refused_instead_of_answered_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(StartupError, match="lacks weights"):
        load(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()

    with pytest.raises(StartupError, match="not an image-classification checkpoint"):
        load(folder)


def test_cut_weights_are_refused_in_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(StartupError, match="not an image-classification checkpoint") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_revision_of_a_folder_follows_its_content(folder: Path) -> None:
    before = find_checkpoint(str(folder))
    configure(folder, id2label={str(index): f"label {index}" for index in range(10)})
    relabeled = find_checkpoint(str(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    retrained = find_checkpoint(str(folder))

    assert before == Checkpoint("model", folder, find_checkpoint("vit-tiny-cifar10").revision)
    assert len({before.revision, relabeled.revision, retrained.revision}) == 3


def test_model_with_fewer_labels_than_five_gives_them_all(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][:3].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    labels = ["a", "b", "c"]
    configure(
        folder,
        id2label={str(index): label for index, label in enumerate(labels)},
        label2id={label: index for index, label in enumerate(labels)},
    )

    [predictions] = load(folder).classify([ZEROS])

    assert sorted(p.label for p in predictions) == labels
    assert sum(p.confidence for p in predictions) == pytest.approx(1)


def test_labels_that_do_not_exclude_each_other_are_believed_one_by_one(folder: Path) -> None:
    configure(folder, problem_type="multi_label_classification")

    [one_by_one] = load(folder).classify([ZEROS])
    [exclusive] = load(BUNDLED_FOLDER).classify([ZEROS])

    assert [p.label for p in one_by_one] == [p.label for p in exclusive]
    assert [p.confidence for p in one_by_one] != pytest.approx([p.confidence for p in exclusive], abs=0.01)
