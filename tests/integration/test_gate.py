"""The gate: an engine that changes answers is never used, and the report says by how much."""

import json
import re
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from image_analysis_common.models import EngineReport
from image_analysis_common.startup import StartupError
from image_analysis_worker.engines import gate
from image_analysis_worker.engines import load as engines
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, find_checkpoint
from image_analysis_worker.engines.cores import has_gpu, has_vnni
from image_analysis_worker.engines.gate import REPORT, Report, judge, read_report
from image_analysis_worker.engines.images import cut_photos
from image_analysis_worker.optimize import optimize
from support.engines import embed, load


@pytest.fixture(scope="module")
def optimized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, optimized with an int8 model."""
    folder = tmp_path_factory.mktemp("optimized") / "pets"
    optimize(find_checkpoint(str(BUNDLED_FOLDER)), folder, cut_photos(30), source="photos", has_int8=True)
    return folder


def spoil(model: Path) -> None:
    """Shuffle the int8 weights of each layer."""
    body = np.fromfile(model.with_suffix(".bin"), np.int8)
    places = re.findall(r'<data element_type="i8" shape="[^"]+" offset="(\d+)" size="(\d+)"', model.read_text())
    for offset, size in places:
        np.random.default_rng(1).shuffle(body[int(offset) : int(offset) + int(size)])
    body.tofile(model.with_suffix(".bin"))
    assert places


def test_spoiled_int8_model_is_refused_and_the_exact_one_serves(optimized: Path, tmp_path: Path) -> None:
    folder = Path(copytree(optimized, tmp_path / "pets"))
    spoil(folder / "openvino" / "int8.xml")
    (folder / REPORT).unlink()

    with pytest.raises(StartupError, match=r"^pets does not pass the gate: openvino int8 agrees on .*%"):
        load(folder, dtype="int8")
    assert load(folder).warm_up().dtype == "float32"


def rewrite(folder: Path, **fields: float) -> None:
    """Change the figures of the int8 model in a report."""
    report = json.loads((folder / REPORT).read_text())
    for candidate in report["candidates"]:
        if candidate["precision"] == "int8":
            candidate |= fields
    (folder / REPORT).write_text(json.dumps(report))


@pytest.mark.parametrize(
    ("figures", "settings", "expected"),
    [
        ({"agreement": 0.99}, {}, "float32"),
        ({"agreement": 0.99}, {"min_agreement": 0.99}, "int8"),
        ({"agreement": 1.0, "confidence_difference": 0.03}, {}, "float32"),
        ({"agreement": 1.0, "confidence_difference": 0.01}, {}, "int8"),
        ({"agreement": 1.0, "confidence_difference": 0.01, "images_per_s": 0.1}, {}, "float32"),
    ],
    ids=["other labels", "as few as allowed", "other confidence", "same answers", "slower"],
)
def test_fastest_engine_that_gives_the_same_answers_is_chosen(
    optimized: Path, tmp_path: Path, figures: dict[str, float], settings: dict[str, float], expected: str
) -> None:
    folder = Path(copytree(optimized, tmp_path / "pets"))
    rewrite(folder, **{"images_per_s": 1e6, "confidence_difference": 0.0, **figures})

    announced = load(folder, engine="openvino", **settings).warm_up()

    # On hardware with bfloat16, that may be the fastest of the rest.
    assert (announced.dtype == "int8") == (expected == "int8")
    assert announced.model.precision == announced.dtype


def test_engine_that_is_asked_for_and_fails_is_one_line(optimized: Path, tmp_path: Path) -> None:
    folder = Path(copytree(optimized, tmp_path / "pets"))
    rewrite(folder, agreement=0.9, confidence_difference=0)

    with pytest.raises(StartupError) as caught:
        load(folder, dtype="int8")
    assert str(caught.value) == (
        "No engine passes the gate: openvino int8 agrees on 90.0% of the images, MIN_AGREEMENT is 0.995."
    )


def test_report_of_other_weights_counts_for_nothing(tmp_path: Path) -> None:
    folder = Path(copytree(BUNDLED_FOLDER, tmp_path / "pets"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))

    announced = load(folder).warm_up()

    assert read_report(find_checkpoint(str(folder))) is None
    assert (announced.backend, announced.engines) == ("torch", [])


def test_report_of_int8_counts_for_nothing_on_a_cpu_that_adds_otherwise(optimized: Path, tmp_path: Path) -> None:
    folder = Path(copytree(optimized, tmp_path / "pets"))
    rewrite(folder, agreement=1.0, confidence_difference=0.0, images_per_s=1e6)
    assert load(folder).warm_up().dtype == "int8"

    report = json.loads((folder / REPORT).read_text())
    (folder / REPORT).write_text(json.dumps(report | {"has_vnni": not has_vnni()}))

    announced = load(folder).warm_up()
    assert announced.dtype != "int8"
    assert "openvino int8" not in [found.name for found in announced.engines]


FAST_HALF = {
    "engine": "torch",
    "precision": "bfloat16",
    "agreement": 1,
    "confidence_difference": 0,
    "images_per_s": 1e6,
}


def add_half(folder: Path) -> Path:
    """Add torch's bfloat16 to a copy of the bundled model's report, as the fastest."""
    copytree(BUNDLED_FOLDER, folder)
    report = json.loads((folder / REPORT).read_text())
    (folder / REPORT).write_text(json.dumps(report | {"candidates": [*report["candidates"], FAST_HALF]}))
    return folder


def test_bfloat16_of_a_report_is_chosen_only_by_hardware_that_multiplies_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = add_half(tmp_path / "pets"), list[str]()
    for module in (engines, gate):
        monkeypatch.setattr(module, "has_gpu", lambda: False)
    for multiplies in (True, False):
        monkeypatch.setattr(engines, "has_bfloat16", lambda multiplies=multiplies: multiplies)
        found.append(load(folder, engine="torch").warm_up().dtype)

    assert found == ["bfloat16", "float32"]
    assert load(folder, engine="torch", dtype="bfloat16").warm_up().dtype == "bfloat16"


def test_report_of_a_cpu_does_not_decide_how_torch_runs_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_half(tmp_path / "pets")
    for module in (engines, gate):
        monkeypatch.setattr(module, "has_gpu", lambda: True)

    announced = load(folder).warm_up()
    monkeypatch.undo()

    # Without a report, a model as small as the bundled one runs in float32.
    assert (announced.backend, announced.dtype, announced.engines) == ("torch", "float32", [])


def test_report_of_a_gpu_does_not_make_a_cpu_run_torch(tmp_path: Path) -> None:
    folder = add_half(tmp_path / "pets")
    report = json.loads((folder / REPORT).read_text())
    (folder / REPORT).write_text(json.dumps(report | {"has_gpu": not has_gpu()}))

    read = read_report(find_checkpoint(str(folder)))

    assert read is not None
    assert {found.engine for found in read.candidates} == {"openvino"}


def test_report_names_the_precision_and_the_speed_of_each_engine(optimized: Path) -> None:
    report = Report.model_validate_json((optimized / REPORT).read_bytes())

    exact = EngineReport(engine="torch", precision="float32", agreement=1, confidence_difference=0, images_per_s=1)
    assert report.images == 30
    assert {"torch float32", "openvino float32", "openvino int8"} <= {found.name for found in report.candidates}
    assert all(found.images_per_s > 0 for found in report.candidates)
    assert judge(exact, 1) is None


def test_int8_that_nobody_made_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot run with ENGINE=auto and DTYPE=int8 here, only with torch float32"):
        load(BUNDLED_FOLDER, dtype="int8")


def test_embedding_of_an_int8_model_is_close_to_the_exact_one(optimized: Path) -> None:
    images = cut_photos(8)

    rounded = embed(load(optimized, dtype="int8", min_agreement=0), images)
    exact = embed(load(optimized, engine="openvino", dtype="float32", min_agreement=0), images)

    assert (rounded * exact).sum(axis=1).min() > 0.95
    assert len(np.unique(rounded)) > 256  # it is taken before it is rounded
