"""Who runs in the throughput rows: what a contender is, and those behind a queue, ours and RQ's own workers.

A contender takes photos and returns when the first was begun and when each ended. How many photos are enough, and what
is made of the times, is `throughput`'s business.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from redis import Redis

from image_analysis_common import keys, tasks
from perf.programs import Program
from perf.queues import OurQueue, RqQueue, drain

START_S = 240.0
"""The first start of LitServe puts torch into its environment."""


@dataclass(frozen=True)
class Model:
    """A checkpoint that everybody runs."""

    name: str
    model_id: str
    folder: Path


@dataclass(frozen=True)
class Window:
    """The part of a run that counts: whole batches, without `lead` photos at the start and `tail` at the end."""

    batch_size: int = 1
    lead: int = 0
    tail: int = 0


class Contender(Protocol):
    """One way to get photos through the models."""

    name: str
    keeps_model: bool
    """Whether the model stays loaded between photos."""

    def ready(self) -> None:
        """Wait until it takes photos.

        Raises:
            ProgramError: it does not.
        """

    def setting(self, model: Model) -> str:
        """Say what runs, and at which settings."""

    def window(self, model: Model) -> Window:
        """Say which part of a run counts."""

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        """Return the start and the end of each photo.

        Raises:
            ProgramError, LoadError
        """

    def stop(self) -> None:
        """End its programs, before the end of all."""


class OurWorker:
    """For each model one process of ours on a full queue."""

    name, keeps_model = "ours", True

    def __init__(self, stack: ExitStack, models: Sequence[Model], redis_url: str, folder: Path) -> None:
        self._redis = Redis.from_url(redis_url)
        self._queues = {model: OurQueue(redis_url, model.model_id) for model in models}
        self._programs = {
            model: stack.enter_context(
                Program(
                    f"ours-{model.folder.name}",
                    [sys.executable, "-m", "image_analysis_worker"],
                    folder,
                    {"REDIS_URL": redis_url, "MODEL_ID": model.model_id},
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
        announced = json.loads(self._redis.get(keys.announcement(tasks.model_name(model.model_id))) or "{}")
        return str(announced["dtype"]).removeprefix("torch."), int(announced.get("max_batch_size", 1))

    def setting(self, model: Model) -> str:
        dtype, batch_size = self.precision(model)
        return f"image_analysis_worker at its defaults: {dtype}, batches of up to {batch_size}"

    def window(self, model: Model) -> Window:
        _, batch_size = self.precision(model)
        # Decoding runs beside the model: nothing is in the model at first, and behind the last two batches (one in
        # the model, one decoded) nothing is decoded any more.
        return Window(batch_size, lead=batch_size, tail=2 * batch_size)

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        return drain(self._programs[model], self._queues[model], photos)

    def stop(self) -> None:
        for program in self._programs.values():
            program.stop()


class RqWorker:
    """A worker of RQ's own on a full queue; the model is loaded when a job first asks for it."""

    def __init__(self, stack: ExitStack, worker_class: str, redis_url: str, folder: Path) -> None:
        self.name = worker_class
        self._redis_url = redis_url
        self._program = stack.enter_context(start_rq(worker_class, redis_url, folder))
        self.keeps_model = worker_class != "Worker"

    def ready(self) -> None:
        """Nothing to wait for: its first job comes when it is up."""

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
    """Start a stock worker on the queue that has its class's name."""
    command = ["-m", "rq.cli", "worker", "-S", "json", "-w", f"rq.{worker_class}", "-u", redis_url, worker_class]
    return Program(f"rq-{worker_class.lower()}", [sys.executable, *command], folder, {"REDIS_URL": redis_url})
