"""Which folders are accepted as image-classification checkpoints, and which are refused."""

import json
import re
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch
from safetensors.torch import load_file, save_file

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decoder import Pixels
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, Checkpoint, find_checkpoint
from support.engines import configure, load

CARD = """---
model-index:
- results:
  - task: {{type: image-classification}}
    dataset: {{name: pets, type: imagefolder}}
    metrics: [{{type: accuracy, value: {value}}}]
  {model_name}
---
"""
ZEROS = Pixels((3, 32, 32), bytearray(3 * 32 * 32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(copytree(BUNDLED_FOLDER, tmp_path / "model", ignore=ignore_patterns("openvino")))


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


def test_model_with_fewer_labels_than_five_returns_all(folder: Path) -> None:
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


def test_labels_that_do_not_exclude_each_other_get_independent_confidences(folder: Path) -> None:
    configure(folder, problem_type="multi_label_classification")

    [one_by_one] = load(folder).classify([ZEROS])
    [exclusive] = load(BUNDLED_FOLDER).classify([ZEROS])

    assert [p.label for p in one_by_one] == [p.label for p in exclusive]
    assert [p.confidence for p in one_by_one] != pytest.approx([p.confidence for p in exclusive], abs=0.01)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"1": "a", "2": "b"}, "id2label in config.json has no label 0: its 2 labels need the numbers 0 to 1"),
        ({"0": "a", "2": "b"}, "id2label in config.json has no label 1"),
        ({"a": "0"}, "id2label in config.json does not map numbers to labels"),
        ({"0": "a", "1": "b"}, "config.json names 2 labels"),
    ],
    ids=["from 1", "a hole", "turned round", "too few"],
)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_labels_that_do_not_fit_are_refused_with_a_reason(
    engine: str, tmp_path: Path, labels: dict[str, str], reason: str
) -> None:
    folder = Path(copytree(BUNDLED_FOLDER, tmp_path / "model"))
    if engine == "openvino":
        (folder / "model.safetensors").unlink()
    configure(folder, id2label=labels, label2id={label: int(index) for index, label in labels.items() if index != "a"})

    with pytest.raises(StartupError, match=f"^model:? .*{re.escape(reason)}|^model lacks weights") as caught:
        load(folder).warm_up()
    assert "\n" not in str(caught.value)


CARDS: dict[str, tuple[str | bytes, float | None]] = {
    "no name": (CARD.format(value="0.91", model_name=""), None),
    "no dataset": (re.sub(" +dataset.*\n", "", CARD.format(value="0.91", model_name="name: pets")), None),
    "percent": (CARD.format(value="95.2%", model_name="name: pets"), 0.952),
    "of 100": (CARD.format(value="95.24", model_name="name: pets"), 0.9524),
    "of 1": (CARD.format(value="0.5", model_name="name: pets"), 0.5),
    "nested": (CARD.format(value="{accuracy: 0.9}", model_name="name: pets"), None),
    "text": (CARD.format(value="high", model_name="name: pets"), None),
    "nan": (CARD.format(value=".nan", model_name="name: pets"), None),
    "list": ("---\n- a\n- b\n---\n# x", None),
    "broken": ("---\na: [\n---\n# x", None),
    "no front matter": ("# Pets", None),
    "empty": ("", None),
    "Latin-1": ("---\nlanguage: fran\xe7ais\n---".encode("latin-1"), None),
    "bytes": (bytes(range(256)), None),
}


@pytest.mark.parametrize("name", CARDS)
def test_model_card_of_any_kind_does_not_stop_a_worker(folder: Path, name: str) -> None:
    text, accuracy = CARDS[name]
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())

    stated = find_checkpoint(str(folder)).accuracy

    assert stated == (None if accuracy is None else pytest.approx(accuracy))


def test_missing_card_and_a_folder_in_its_place_state_no_accuracy(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert find_checkpoint(str(folder)).accuracy is None
    (folder / "README.md").mkdir()
    assert find_checkpoint(str(folder)).accuracy is None


@pytest.mark.parametrize("fields", [{}, {"label_names": ["cat", "dog"]}], ids=["ImageNet's labels", "its own labels"])
def test_timm_checkpoint_without_timm_is_one_line(folder: Path, fields: dict[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}} | fields))

    with pytest.raises(StartupError) as caught:
        load(folder)
    assert str(caught.value) == (
        "model is a timm checkpoint: install timm, or convert it where timm is installed: just optimize model."
    )


def test_timm_checkpoint_without_classes_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": {}, "num_classes": 0}))

    with pytest.raises(StartupError, match="not an image-classification checkpoint: it has no classes"):
        load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_configuration_that_cannot_be_read_is_refused_in_one_line(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, "latin-1")

    with pytest.raises(StartupError, match=r"^model is not an image-classification checkpoint") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", '{"image_processor_type": "None"}', '{"size": "large"}'])
def test_image_processor_that_cannot_be_made_is_refused_in_one_line(folder: Path, content: str) -> None:
    (folder / "preprocessor_config.json").write_text(content)

    with pytest.raises(StartupError) as caught:
        load(folder).warm_up()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("target", ["absent", None], ids=["dangling link", "link to itself"])
def test_file_that_cannot_be_read_is_named_in_one_line(folder: Path, name: str, target: str | None) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(target or name)

    with pytest.raises(StartupError) as caught:
        find_checkpoint(str(folder))
    assert str(caught.value).startswith(f"MODEL_ID={folder}: {folder / name} cannot be read: ")
    assert "\n" not in str(caught.value)


def test_home_of_an_unknown_user_is_one_line() -> None:
    with pytest.raises(StartupError, match=r"^MODEL_ID=~nobody-here/pets: this user's home folder is not known: "):
        find_checkpoint("~nobody-here/pets")
