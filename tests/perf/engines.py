"""The engine rows: checkpoints on each engine in each precision, each next to a bare loop of its own.

The bundled model runs on photos of two sizes, a ViT-base on small ones. `just optimize` makes OpenVINO's models and
reports which of them the gate refuses; speed counts here, so those run too, and their names say so.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER, Checkpoint
from image_analysis_worker.engines.cores import has_bfloat16
from image_analysis_worker.engines.gate import judge, read_report
from image_analysis_worker.settings import WorkerSettings
from perf.contenders import Contender, Model, OurWorker
from perf.machine import count_cores
from perf.photos import LARGE_PX, SMALL_PX, Photos
from perf.programs import SCRIPTS, Program, ProgramError
from perf.rates import steady_rate
from perf.rows import BARE_LOOP, BUNDLED, FULL_LOOP, REFUSED, VIT_BASE, Results, Say, SpeedRow, Turns
from perf.servers import LitServe
from perf.throughput import MAX_COUNT, WINDOW_S, pace_of

OPTIMIZE_S = 600.0
VIT_BASE_IMAGES = 8
"""Enough to find the ranges of int8; the answers of random weights are not worth more."""
LOOP_PHOTOS = 16


@dataclass(frozen=True)
class Line:
    """A model on one engine in one precision, and what runs it."""

    model: Model
    engine: str
    worker: OurWorker
    sizes: Sequence[Photos]


def measure_engines(redis_url: str, folder: Path, turns: Turns, say: Say, *, has_litserve: bool) -> Results:
    """Let a worker on each engine empty a queue of photos, after bare loops on the same engine; then LitServe.

    Raises:
        ProgramError: a worker or a loop does not work.
    """
    rows: dict[tuple[str, str, str], SpeedRow] = {}
    missing: dict[str, str] = {}
    small, large = Photos("224 px", SMALL_PX), Photos("12 MP", LARGE_PX)
    for photos in (small, large):
        (folder / photos.name).mkdir()
        for number, photo in enumerate(photos.take(LOOP_PHOTOS)):
            (folder / photos.name / f"{number}.jpg").write_bytes(photo)

    def note(contender: str, model: str, photos: Photos, setting: str, speed: float) -> None:
        key = (contender, model, photos.name)
        rows.setdefault(key, SpeedRow(*key, setting)).images_per_s.append(speed)
        say(f"{model}, {photos.name}, {contender}: {speed:.1f} photos/s")

    with ExitStack() as stack:
        say("making a ViT-base, and OpenVINO's models, which takes a minute or two")
        models = list(_make_models(folder, folder / small.name))
        bundled = Model(BUNDLED, str(BUNDLED_FOLDER), BUNDLED_FOLDER)
        rival = _start_litserve(stack, bundled, folder, missing) if has_litserve else None
        command = [sys.executable, str(SCRIPTS / "bare_loop.py"), str(count_cores())]
        variables = {"OMP_WAIT_POLICY": "PASSIVE"}
        bare = stack.enter_context(Program("bare-loop", command, folder, variables, has_pipes=True))
        lines = [
            Line(
                model,
                model.variables["ENGINE"],
                OurWorker(stack, [model], redis_url, folder),
                [small, large] if model.name.startswith(BUNDLED) else [small],
            )
            for model in models
        ]
        for line in lines:
            line.worker.ready()
        for turn in turns:
            say(f"engines, round {turn + 1} of {turns.wanted}")
            for line in lines:
                for photos in line.sizes:
                    _measure(line, photos, bare, partial(note, model=line.model.name, photos=photos))
            if rival is not None:
                note(rival.name, BUNDLED, small, rival.setting(bundled), _speed_of(rival, bundled, small))
    return Results(speeds=list(rows.values()), missing=missing)


def _make_models(folder: Path, photos: Path) -> Iterator[Model]:
    """Optimize the checkpoints; give a model for each engine and precision, under a name of its own."""
    vit_base = folder / "vit-base"
    if not vit_base.exists():
        with Program("make-vit-base", [sys.executable, SCRIPTS / "vit_base.py", vit_base], folder) as maker:
            maker.finish()
    some = folder / "some"
    some.mkdir()
    for path in sorted(photos.iterdir())[:VIT_BASE_IMAGES]:
        (some / path.name).symlink_to(path)
    sources = {BUNDLED: BUNDLED_FOLDER, VIT_BASE: vit_base}
    optimized = {name: folder / f"optimized-{name}" for name in sources}
    options: dict[str, list[str | Path]] = {BUNDLED: [], VIT_BASE: ["--images", some]}
    int8 = ["--int8"] if find_spec("nncf") else []
    command = [sys.executable, "-m", "image_analysis_worker.optimize"]
    programs = [
        Program(f"optimize-{name}", [*command, source, *int8, *options[name], "--output", optimized[name]], folder)
        for name, source in sources.items()
    ]
    with ExitStack() as stack:
        for program in programs:
            stack.enter_context(program)
        for program in programs:
            program.finish(OPTIMIZE_S)
    half = ["bfloat16"] if has_bfloat16() else []
    wanted = [(BUNDLED, "torch", ["float32", *half]), (BUNDLED, "openvino", ["float32", *half, "int8"])]
    wanted += [(VIT_BASE, "torch", half), (VIT_BASE, "openvino", [*half, "int8"])]
    for name, engine, precisions in wanted:
        for precision in precisions:
            source = sources[name] if engine == "torch" else optimized[name]
            if precision == "int8" and not int8:
                continue
            link = folder / f"{name}-{engine}-{precision}"
            link.symlink_to(source)
            mark = REFUSED if name == BUNDLED and _is_refused(optimized[name], engine, precision) else ""
            settings = {"ENGINE": engine, "DTYPE": precision, "MIN_AGREEMENT": "0"}
            yield Model(f"{name}, {engine} {precision}{mark}", str(link), link, settings)


def _is_refused(folder: Path, engine: str, precision: str) -> bool:
    """Return whether the gate refuses an engine, by the report that was just made of this checkpoint."""
    report = read_report(Checkpoint(folder.name, folder, ""))
    found = report and report.find(engine, precision)
    return bool(found and judge(found, WorkerSettings().min_agreement))


def _start_litserve(stack: ExitStack, model: Model, folder: Path, missing: dict[str, str]) -> LitServe | None:
    try:
        rival = LitServe(stack, [model], folder)
        rival.ready()
    except ProgramError as error:
        missing[LitServe.name] = str(error)
        return None
    return rival


def _measure(line: Line, photos: Photos, bare: Program, note: partial[None]) -> None:
    """Measure the loops and our worker, one right after the other."""
    precision, batch_size = line.worker.precision(line.model)
    request: Mapping[str, object] = {
        "folder": str(line.model.folder),
        "engine": line.engine,
        "dtype": precision,
        "batch_size": batch_size,
        "duration_s": WINDOW_S,
        "photos": str(line.model.folder.parent / photos.name),
    }
    setting = f"{line.engine} {precision}, batches of {batch_size}"
    # A ViT-base wants 224 px: there is nothing to reduce.
    loops = {BARE_LOOP: True} if line.model.name.startswith(VIT_BASE) else {FULL_LOOP: False, BARE_LOOP: True}
    for loop, is_reduced in loops.items():
        note(loop, setting=setting, speed=float(bare.ask(json.dumps({**request, "reduced": is_reduced}))))
    note("ours", setting=setting, speed=_speed_of(line.worker, line.model, photos))


def _speed_of(contender: Contender, model: Model, photos: Photos) -> float:
    window = contender.window(model)
    pace = pace_of(contender, model, photos.take(2 * window.batch_size))
    count = min(max(round(pace * WINDOW_S / window.batch_size), 2) * window.batch_size, MAX_COUNT)
    times = contender.run(model, photos.take(window.lead + count + window.tail))
    return steady_rate(*times, lead=window.lead, tail=window.tail)
