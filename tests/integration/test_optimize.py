"""`just optimize` into a folder that exists: nothing of what was there before is served with the new model."""

import json
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_analysis_common.startup import StartupError
from image_analysis_worker import optimize as command
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.gate import REPORT, Report
from image_analysis_worker.engines.images import read_images
from support.engines import classify, load
from support.onnx_models import LABELS, make_onnx_checkpoint, make_weights, write_onnx
from support.samples import encode, make_png

IMAGES = [make_png(seed) for seed in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_onnx_checkpoint(tmp_path / "pets", make_weights())


def optimize(folder: Path, output: Path, images: Iterable[bytes] = IMAGES) -> Report:
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


WHITE = encode(Image.new("RGB", (32, 32), "white"))


def export(folder: Path, label: int) -> None:
    """Write a model in ONNX that gives `label` to what is white."""
    weights = np.zeros((3 * 32 * 32, LABELS), np.float32)
    weights[:, label] = 0.01
    write_onnx(folder / "onnx" / "model.onnx", weights)


def test_new_onnx_model_in_a_folder_optimized_in_place_is_served(folder: Path) -> None:
    export(folder, 3)
    optimize(folder, folder)
    export(folder, 5)

    exported = load(folder)
    optimize(folder, folder)
    optimized = load(folder)

    assert [bool(model.warm_up().engines) for model in (exported, optimized)] == [False, True]
    for model in (exported, optimized):
        [answer] = classify(model, [WHITE])
        assert max(answer, key=answer.__getitem__) == model.warm_up().labels[5]


def test_report_counts_in_place_although_the_labels_of_timms_model_are_written(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    data = {"input_size": [3, 32, 32], "crop_pct": 1, "crop_mode": "squash"}
    (folder / "config.json").write_text(
        json.dumps({"pretrained_cfg": data, "label_names": list(config["id2label"].values())})
    )

    optimize(folder, folder)

    assert [found.name for found in load(folder).warm_up().engines] == ["openvino float32"]


@pytest.mark.parametrize("file", ["model.safetensors", "onnx/model.onnx"])
def test_output_with_another_models_files_is_refused_and_left_as_it_is(folder: Path, tmp_path: Path, file: str) -> None:
    other = tmp_path / "birds"
    (other / file).parent.mkdir(parents=True)
    (other / file).write_bytes(b"1")

    with pytest.raises(StartupError, match=rf"/birds holds a model of its own, {file}: choose .* --output\.$"):
        optimize(folder, other)

    assert read_files(other) == {file: b"1"}


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_interrupted_run_leaves_no_report_and_no_older_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "fast"
    write_onnx(folder / "onnx" / "model_quantized.onnx", make_weights())
    optimize(folder, output)
    earlier = read_files(output)
    write_onnx(folder / "onnx" / "model.onnx", make_weights(6))
    (folder / "onnx" / "model_quantized.onnx").unlink()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimize(folder, output)

    left = read_files(output)
    assert str(REPORT) in earlier
    assert left.keys() == {"config.json", "preprocessor_config.json", "openvino/float32.bin", "openvino/float32.xml"}
    assert left["openvino/float32.bin"] != earlier["openvino/float32.bin"]


@contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Let no file become larger, which fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_one_line_and_the_earlier_model_stays(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "fast"
    optimize(folder, output)
    earlier = read_files(output)
    write_onnx(folder / "onnx" / "model.onnx", make_weights(6))

    with full_disk(100_000), pytest.raises(StartupError) as caught:
        optimize(folder, output)

    assert str(caught.value).startswith(f"{output} cannot be written: ")
    assert "\n" not in str(caught.value)
    assert read_files(output) == earlier


def test_file_in_the_place_of_the_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "fast").write_text("")

    with pytest.raises(StartupError, match=r"/fast cannot be written: .*choose another folder with --output\.$"):
        optimize(folder, tmp_path / "fast")


def test_images_of_a_folder_are_read_one_by_one(tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES[:2]):
        (tmp_path / f"{number}.png").write_bytes(image)

    images = read_images(tmp_path)
    (tmp_path / "1.png").unlink()

    assert next(images) == IMAGES[0]
    with pytest.raises(StartupError, match=r"/1\.png cannot be read: No such file or directory\. Take it out"):
        next(images)


def test_folder_without_images_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="holds no images"):
        read_images(tmp_path)
