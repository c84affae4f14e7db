"""The threads that decode images outlive images that fail, and end with decoders that are broken."""

import threading
from collections.abc import Iterable
from typing import Any, cast

import pytest

from image_analysis_common.startup import StartupError
from image_analysis_worker.jobs.batching import InFlight, Job
from image_analysis_worker.outage import Outage
from image_analysis_worker.threads.loader import Loader
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL
from support.jobs import make_job
from support.waiting import PATIENCE_S


class Parts:
    """A queue with two jobs, of which the first one fails; the model that prepares them; and no trainings."""

    ref = MODEL
    is_suspended = False

    def __init__(self, *, is_broken: bool) -> None:
        self.jobs = [make_job("a"), make_job("b")]
        self.stopping = threading.Event()
        self.is_second_done = threading.Event()
        self._is_broken = is_broken
        self._is_taken = False

    def take(self, limit: int, *, wait_s: int, is_alone: bool) -> tuple[list[Job], bool]:
        if self._is_taken:
            self.is_second_done.wait(0.01 if self._is_broken else PATIENCE_S)
            if not self._is_broken:
                self.stopping.set()
            return [], False
        self._is_taken = True
        return self.jobs, False

    def open_decoder(self) -> None:
        pass

    def prepare(self, job: Job, decoder: Any) -> str:
        if job.job_id == "a":
            raise StartupError("The image processor does not start.")
        self.is_second_done.set()
        return job.job_id

    def check_decoder(self, decoder: Any) -> None:
        if self._is_broken:
            raise StartupError("The image processor does not start.")

    def add(self, jobs: Iterable[Job]) -> bool:
        return True


def run(parts: Parts) -> InFlight:
    in_flight = InFlight(4)
    shared = Shared(cast(Any, parts), in_flight, Outage(parts.stopping), Watchdog(60), parts.stopping)
    Loader(shared, cast(Any, parts), cast(Any, parts), decoders=1).run()
    return in_flight


def test_broken_decoders_end_the_loader_and_only_one_job_fails() -> None:
    parts = Parts(is_broken=True)

    with pytest.raises(RuntimeError, match="A blank image cannot be decoded, either"):
        run(parts)

    assert [job.failure is not None for job in parts.jobs] == [True, False]
    assert not parts.is_second_done.is_set()


def test_job_that_fails_by_itself_ends_no_other_job() -> None:
    parts = Parts(is_broken=False)

    in_flight = run(parts)

    assert [job.failure is not None for job in parts.jobs] == [True, False]
    assert in_flight.next_batch(2, PATIENCE_S) == parts.jobs
