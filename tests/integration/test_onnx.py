"""A checkpoint in ONNX is served as it is, without torch; its quantized model only where it gives the same answers."""

import json
from contextlib import closing
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from numpy.typing import NDArray

from image_analysis_common.startup import StartupError
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.images import cut_photos
from image_analysis_worker.optimize import optimize
from support.engines import classify, load
from support.onnx_models import make_onnx_checkpoint, make_weights, write_onnx
from support.samples import CHELSEA, make_png


@pytest.fixture
def weights() -> NDArray[np.float32]:
    return make_weights()


@pytest.fixture
def folder(tmp_path: Path, weights: NDArray[np.float32]) -> Path:
    return make_onnx_checkpoint(tmp_path / "pets", weights)


def test_onnx_model_gives_its_own_answers(folder: Path, weights: NDArray[np.float32]) -> None:
    model = load(folder)
    announced = model.warm_up()
    with closing(model.open_decoder()) as decoder:
        pixels = decoder.decode(CHELSEA.read_bytes())
    levels = np.frombuffer(pixels.values, np.uint8).reshape(3, 32, 32) / 255
    mean, std = (np.array(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    logits = ((levels - mean) / std).reshape(-1) @ weights
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()

    [answer] = classify(model, [CHELSEA.read_bytes()])

    assert (announced.backend, announced.dtype, announced.engines) == ("openvino", "float32", [])
    assert [answer[label] for label in announced.labels] == pytest.approx(expected.tolist(), abs=1e-4)


def test_converted_timm_model_is_served_without_timm(folder: Path, tmp_path: Path) -> None:
    usual = json.loads((folder / "config.json").read_text())
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    statistics = {name: processor[f"image_{name}"] for name in ("mean", "std")}
    data = {"input_size": [3, 32, 32], "crop_pct": 1, "crop_mode": "squash", "interpolation": "bicubic"} | statistics
    of_timm = Path(copytree(folder, tmp_path / "timm"))
    (of_timm / "preprocessor_config.json").unlink()
    (of_timm / "config.json").write_text(
        json.dumps(
            {"architecture": "resnet18", "pretrained_cfg": data, "label_names": list(usual["id2label"].values())}
        )
    )

    [answer], [expected] = (classify(load(of), [CHELSEA.read_bytes()]) for of in (of_timm, folder))

    assert answer == pytest.approx(expected, abs=1e-3)


def test_quantized_model_serves_if_it_agrees_and_is_refused_if_not(
    folder: Path, weights: NDArray[np.float32], tmp_path: Path
) -> None:
    other = Path(copytree(folder, tmp_path / "other"))
    write_onnx(folder / "onnx" / "model_quantized.onnx", weights * np.float32(1.0001))
    write_onnx(other / "onnx" / "model_quantized.onnx", weights[:, ::-1].copy())

    announced = load(folder, dtype="int8").warm_up()

    assert (announced.dtype, announced.model.precision) == ("int8", "int8")
    assert load(folder).warm_up().dtype == "float32"
    with pytest.raises(StartupError, match=r"^other does not pass the gate: openvino int8 agrees on"):
        load(other, dtype="int8")


def test_onnx_model_is_optimized_without_torch(folder: Path, weights: NDArray[np.float32], tmp_path: Path) -> None:
    write_onnx(folder / "onnx" / "model_quantized.onnx", weights)
    images = [CHELSEA.read_bytes(), make_png(1)]

    report = optimize(find_checkpoint(str(folder)), tmp_path / "fast", cut_photos(10), source="photos", has_int8=False)

    assert {"openvino float32", "openvino int8"} <= {found.name for found in report.candidates}
    assert all(not found.name.startswith("torch") for found in report.candidates)
    for answer, expected in zip(classify(load(tmp_path / "fast"), images), classify(load(folder), images), strict=True):
        assert answer == pytest.approx(expected, abs=1e-3)


def test_model_for_one_image_at_a_time_is_served_and_passes_the_gate(
    weights: NDArray[np.float32], tmp_path: Path
) -> None:
    single = make_onnx_checkpoint(tmp_path / "single", weights, batch=1)
    write_onnx(single / "onnx" / "model_quantized.onnx", weights, batch=1)

    announced = [load(single, dtype=dtype).warm_up() for dtype in ("float32", "int8")]

    assert [(model.dtype, model.max_batch_size) for model in announced] == [("float32", 1), ("int8", 1)]


def test_model_for_one_image_at_a_time_is_served_whatever_batches_are_set(
    weights: NDArray[np.float32], tmp_path: Path
) -> None:
    single = make_onnx_checkpoint(tmp_path / "single", weights, batch=1)

    assert load(single, max_batch_size=32).warm_up().max_batch_size == 1


def test_model_for_several_images_at_a_time_only_is_one_line(weights: NDArray[np.float32], tmp_path: Path) -> None:
    fixed = make_onnx_checkpoint(tmp_path / "fixed", weights, batch=4)

    with pytest.raises(StartupError, match=r"/model\.onnx takes batches of 4 images only: export it with"):
        load(fixed)


def test_model_that_does_not_take_the_processors_images_is_one_line(folder: Path, weights: NDArray[np.float32]) -> None:
    write_onnx(folder / "onnx" / "model_quantized.onnx", weights)
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    size = {"size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | size))

    with pytest.raises(StartupError, match=r"^pets cannot be served: ") as caught:
        load(folder, dtype="int8")
    assert "\n" not in str(caught.value)


def test_folder_next_to_an_onnx_model_counts_with_what_is_in_it(folder: Path) -> None:
    (folder / "onnx" / "weights").mkdir()
    empty = find_checkpoint(str(folder)).revision
    (folder / "onnx" / "weights" / "part").write_bytes(b"1")

    assert load(folder).warm_up().model.revision == find_checkpoint(str(folder)).revision != empty
