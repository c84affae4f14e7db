"""A worker that is stuck ends itself, and gives back what is not."""

import os
from threading import Event
from typing import Any, cast

import pytest

from image_analysis_common.classifiers import Training
from image_analysis_worker.jobs.batching import InFlight, Job
from image_analysis_worker.outage import Outage
from image_analysis_worker.threads.heartbeat import EXIT_STUCK, Heartbeat
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL
from support.jobs import make_job


class Ended(Exception):
    """The process would have ended."""


class FakeWorker:
    """Remembers the jobs that were given back and those that ended; also stands for the worker's maintenance."""

    def __init__(self) -> None:
        self.given_back: list[Job] = []
        self.finished: list[Job] = []

    def give_back(self, jobs: list[Job]) -> None:
        self.given_back += jobs

    def finish(self, jobs: list[Job]) -> None:
        self.finished += jobs

    def beat(self) -> None:
        pass

    def sweep(self) -> None:
        pass


def test_stuck_worker_gives_back_its_trainings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    stuck, waiting, training = make_job("a"), make_job("b"), make_job("c", training=Training(name="pets"))
    worker, stopping, watchdog = cast(Any, FakeWorker()), Event(), Watchdog(0.01)
    shared = Shared(worker, InFlight(4), Outage(stopping), watchdog, stopping)
    trainer = Trainer(shared, MODEL, limit_s=60)
    shared.in_flight.add([stuck, waiting])
    trainer.add([training])

    with watchdog.step([stuck]), pytest.raises(Ended, match=str(EXIT_STUCK)):
        Heartbeat(shared, worker, trainer).run()

    assert worker.given_back == [waiting, training]
    assert worker.finished == [stuck]
