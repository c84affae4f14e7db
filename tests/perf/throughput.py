"""The throughput rows: photos per second of each contender, for each checkpoint and size of photo, in rounds.

The upper limit is the model's forward pass, with the precision and batch size that our worker has chosen.
"""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from perf.contenders import Contender, Model, OurWorker, RqWorker
from perf.load import LoadError
from perf.machine import busy_s
from perf.photos import LARGE_PX, SMALL_PX, Photos
from perf.programs import SCRIPTS, Program, ProgramError
from perf.rates import steady_rate
from perf.rows import FORWARD_PASS, Results, Say, SpeedRow, Turns
from perf.servers import Endpoint, LitServe

WINDOW_S = 2.0
"""Approximate time of a measurement, estimated from the pace of the one before."""

MAX_COUNT = 1000

RELOADED_COUNT = 1
"""Photos for a contender that loads the model for each photo, which takes seconds; it gets a single round."""


def measure_throughput(redis_url: str, folder: Path, turns: Turns, say: Say) -> Results:
    """Return the rows, and the reason for each rival without a row.

    Raises:
        ProgramError, LoadError: our own part does not work.
    """
    vit_base = Model("ViT-base", str(folder / "vit-base"), folder / "vit-base")
    models = [vit_base, Model("bundled", BUNDLED_MODEL, BUNDLED_FOLDER)]
    say("making a ViT-base, and photos of 224 px and of 12 megapixels")
    with Program("vit-base", [sys.executable, SCRIPTS / "vit_base.py", vit_base.folder], folder) as maker:
        small, large = Photos("224 px", SMALL_PX), Photos("12 MP", LARGE_PX)
        maker.finish()
    with ExitStack() as stack:
        say("starting the contenders; LitServe's environment takes minutes where uv has no torch in its cache")
        race = Race(stack, models, redis_url, folder, say)
        race.wait()
        for turn in turns:
            say(f"photos per second, round {turn + 1} of {turns.wanted}")
            for model in models:
                race.measure(model, small)
                race.measure(model, large)
    return Results(speeds=list(race.rows.values()), missing=race.missing, foreign_cores=race.foreign_cores)


class Race:
    """The running contenders, and their rows so far."""

    def __init__(self, stack: ExitStack, models: list[Model], redis_url: str, folder: Path, say: Say) -> None:
        self._say = say
        self.rows: dict[tuple[str, str, str], SpeedRow] = {}
        self.missing: dict[str, str] = {}
        self.foreign_cores: list[float] = []
        self._ours = OurWorker(stack, models, redis_url, folder)
        self._rivals: list[Contender] = [
            RqWorker(stack, "SimpleWorker", redis_url, folder),
            RqWorker(stack, "Worker", redis_url, folder),
            Endpoint(stack, models, folder),
        ]
        try:
            self._rivals.append(LitServe(stack, models, folder))
        except ProgramError as error:
            self.missing[LitServe.name] = str(error)
        # On a busy machine, a thread that spins while it waits blocks the thread that it waits for.
        variables = {"OMP_WAIT_POLICY": "PASSIVE"}
        script = str(SCRIPTS / "forward_pass.py")
        self._limit = stack.enter_context(
            Program("forward-pass", [sys.executable, script], folder, variables, has_pipes=True)
        )

    def wait(self) -> None:
        """Wait until all contenders are ready; a rival that fails is left out."""
        self._ours.ready()
        for rival in list(self._rivals):
            try:
                rival.ready()
            except ProgramError as error:
                self._leave_out(rival, error)

    def measure(self, model: Model, photos: Photos) -> None:
        """Measure every contender, after the forward pass alone; a rival that fails is left out from then on."""
        self._measure_limit(model, photos)
        self._take_turn(self._ours, model, photos)
        for rival in list(self._rivals):
            try:
                self._take_turn(rival, model, photos)
            except (ProgramError, LoadError) as error:
                self._leave_out(rival, error)

    def _measure_limit(self, model: Model, photos: Photos) -> None:
        """Run only the model, without photos; once for each size, so that it is near our worker's run in time."""
        dtype, batch_size = self._ours.precision(model)
        engine = self._ours.engine(model)
        request = {"folder": str(model.folder), "engine": engine, "dtype": dtype, "batch_size": batch_size}
        request |= {"duration_s": WINDOW_S}
        started_s, busy_before_s, own_s = time.monotonic(), busy_s(), self._limit.cpu_s()
        speed = float(self._limit.ask(json.dumps(request)))
        foreign_s = busy_s() - busy_before_s - (self._limit.cpu_s() - own_s)
        self.foreign_cores.append(foreign_s / (time.monotonic() - started_s))
        setting = f"alone, on ready tensors: {engine} {dtype}, batches of {batch_size}"
        self._note(FORWARD_PASS, model, photos, setting, speed)

    def _take_turn(self, contender: Contender, model: Model, photos: Photos) -> None:
        window = contender.window(model)
        row = self.rows.get((contender.name, model.name, photos.name))
        if contender.keeps_model:
            # The first photos load the model and show the pace.
            pace = row.images_per_s[-1] if row else pace_of(contender, model, photos.take(window.batch_size))
            batches = max(round(pace * WINDOW_S / window.batch_size), 2)
            counted = min(batches * window.batch_size, MAX_COUNT)
        elif row is None:
            counted = RELOADED_COUNT
        else:
            return
        started_s, ends_s = contender.run(model, photos.take(window.lead + counted + window.tail))
        speed = steady_rate(started_s, ends_s, lead=window.lead, tail=window.tail)
        self._note(contender.name, model, photos, contender.setting(model), speed)

    def _note(self, contender: str, model: Model, photos: Photos, setting: str, speed: float) -> None:
        key = (contender, model.name, photos.name)
        self.rows.setdefault(key, SpeedRow(*key, setting)).images_per_s.append(speed)
        self._say(f"{model.name}, {photos.name}, {contender}: {speed:.1f} photos/s")

    def _leave_out(self, rival: Contender, error: Exception) -> None:
        rival.stop()
        self._rivals.remove(rival)
        self.missing[rival.name] = str(error)
        self._say(f"{rival.name} is left out")


def pace_of(contender: Contender, model: Model, photos: list[bytes]) -> float:
    """Measure the pace of a few photos."""
    started_s, ends_s = contender.run(model, photos)
    return len(ends_s) / (ends_s[-1] - started_s)
