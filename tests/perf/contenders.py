"""The contenders of the throughput rows: their interface, and those behind a queue, our worker and RQ's.

A contender runs photos and returns the time of the start and of each photo's end. `throughput` chooses the number of
photos and computes rates from the times.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from image_analysis_common import keys, tasks
from perf.programs import Program
from perf.queues import OurQueue, RqQueue, drain

START_S = 240.0
"""Long enough for the first start of LitServe, which installs torch."""


@dataclass(frozen=True)
class Model:
    """A checkpoint that every contender runs."""

    name: str
    model_id: str
    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The settings of our worker."""


@dataclass(frozen=True)
class Window:
    """The part of a run that counts: whole batches, without `lead` photos at the start and `tail` at the end."""

    batch_size: int = 1
    lead: int = 0
    tail: int = 0


class Contender(Protocol):
    """One way to run photos through the models."""

    name: str
    keeps_model: bool
    """True if the model stays loaded between photos."""

    def ready(self) -> None:
        """Wait until it accepts photos.

        Raises:
            ProgramError: it did not in time.
        """

    def setting(self, model: Model) -> str:
        """Describe what runs, with its settings."""

    def window(self, model: Model) -> Window:
        """Return which part of a run counts."""

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        """Return the start and the end of each photo.

        Raises:
            ProgramError, LoadError
        """

    def stop(self) -> None:
        """End its programs, before the others end."""


class OurWorker:
    """One of our workers for each model, on a full queue."""

    name, keeps_model = "ours", True

    def __init__(self, stack: ExitStack, models: Sequence[Model], redis_url: str, folder: Path) -> None:
        self._redis = Redis.from_url(redis_url)
        self._queues = {model: OurQueue(redis_url, tasks.model_name(model.model_id)) for model in models}
        self._programs = {
            model: stack.enter_context(
                Program(
                    f"ours-{model.folder.name}",
                    [sys.executable, "-m", "image_analysis_worker"],
                    folder,
                    {"REDIS_URL": redis_url, "MODEL_ID": model.model_id, **model.variables},
                )
            )
            for model in models
        }

    def ready(self) -> None:
        for model, program in self._programs.items():
            announcement = partial(self._redis.exists, keys.announcement(tasks.model_name(model.model_id)))
            program.wait_until(announcement, "it announces its model", START_S)

    def precision(self, model: Model) -> tuple[str, int]:
        """Read the type of the weights and the batch size from the worker's announcement."""
        announced = self._announced(model)
        return str(announced["dtype"]).removeprefix("torch."), int(announced.get("max_batch_size", 1))

    def engine(self, model: Model) -> str:
        return str(self._announced(model)["backend"])

    def _announced(self, model: Model) -> dict[str, Any]:
        return dict(json.loads(self._redis.get(keys.announcement(tasks.model_name(model.model_id))) or "{}"))

    def setting(self, model: Model) -> str:
        dtype, batch_size = self.precision(model)
        return f"image_analysis_worker at its defaults: {self.engine(model)} {dtype}, batches of up to {batch_size}"

    def window(self, model: Model) -> Window:
        _, batch_size = self.precision(model)
        # Decoding runs in parallel with the model. At first nothing is in the model, and after the last two batches
        # (one in the model, one decoded) nothing is decoded.
        return Window(batch_size, lead=batch_size, tail=2 * batch_size)

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        return drain(self._programs[model], self._queues[model], photos)

    def stop(self) -> None:
        for program in self._programs.values():
            program.stop()


class RqWorker:
    """One of RQ's workers on a full queue; the first job of a model loads it."""

    def __init__(self, stack: ExitStack, worker_class: str, redis_url: str, folder: Path) -> None:
        self.name = worker_class
        self._redis_url = redis_url
        self._program = stack.enter_context(start_rq(worker_class, redis_url, folder))
        self.keeps_model = worker_class != "Worker"

    def ready(self) -> None:
        """Do nothing: its first job waits until it has started."""

    def setting(self, model: Model) -> str:
        where = "kept between jobs" if self.keeps_model else "loaded in the fork, for each job"
        return f"rq worker -S json -w rq.{self.name}; transformers' pipeline, float32, one image at a time, {where}"

    def window(self, model: Model) -> Window:
        return Window()

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        queue = RqQueue(self._redis_url, self.name, "rq_tasks.classify", folder=str(model.folder))
        return drain(self._program, queue, photos)

    def stop(self) -> None:
        self._program.stop()


def start_rq(worker_class: str, redis_url: str, folder: Path) -> Program:
    """Start an RQ worker on the queue that has the name of its class."""
    command = ["-m", "rq.cli", "worker", "-S", "json", "-w", f"rq.{worker_class}", "-u", redis_url, worker_class]
    return Program(f"rq-{worker_class.lower()}", [sys.executable, *command], folder, {"REDIS_URL": redis_url})
