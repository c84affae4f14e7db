"""The thread that runs batches outlives jobs that fail, and ends with a model that is broken."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from image_analysis_common.models import Prediction
from image_analysis_worker.jobs.batching import Embedding, InFlight, Job
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.threads.inference import Inference
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL
from support.classifiers import make_classifier, make_vectors
from support.jobs import make_job

STORED = make_classifier()
EMBEDDING = Embedding(make_vectors(["cat"])[0].tobytes(), is_cached=False)
DAMAGED = {
    "numbers": replace(STORED, head=replace(STORED.head, weights=np.full_like(STORED.head.weights, np.nan))),
    "labels": replace(STORED, about=STORED.about.model_copy(update={"labels": []})),
}


class Answers:
    """A model that answers every input; and the worker's place for ends."""

    ref = MODEL

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def classify(self, inputs: Sequence[Any], top_k: int) -> list[list[Prediction]]:
        return [[Prediction(label="cat", confidence=1)] for _ in inputs]

    def finish(self, jobs: Sequence[Job]) -> None:
        self._in_flight.close()


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_classifier_fails_its_own_job_alone(damage: str) -> None:
    classifiers = {"a": DAMAGED[damage], "b": None, "c": STORED}
    jobs = [make_job(name, classifier=known, embedding=EMBEDDING) for name, known in classifiers.items()]
    in_flight = InFlight(4)
    in_flight.add(jobs)
    for job in jobs:
        in_flight.mark_ready(job)
    parts = Answers(in_flight)
    stopping = threading.Event()
    shared = Shared(cast(BatchWorker, parts), in_flight, Outage(stopping), Watchdog(60), stopping)

    Inference(shared, cast(Any, parts), max_size=4, wait_s=0).run()

    assert [job.failure is not None for job in jobs] == [True, False, False]
    assert [job.result.label if job.result else None for job in jobs] == [None, "cat", "cat"]


class Failing(Answers):
    """A model that fails on some inputs, and if it `is_broken` then on all others, too."""

    def __init__(self, in_flight: InFlight, failing: Sequence[str], *, is_broken: bool) -> None:
        super().__init__(in_flight)
        self._failing = failing
        self._is_broken = is_broken
        self.returned: Sequence[Job] = ()

    def classify(self, inputs: Sequence[Any], top_k: int) -> list[list[Prediction]]:
        if not set(inputs).isdisjoint(self._failing):
            raise RuntimeError("CUDA error")
        return super().classify(inputs, top_k)

    def check_network(self) -> None:
        if self._is_broken:
            raise RuntimeError("CUDA error")

    def give_back(self, jobs: Sequence[Job]) -> None:
        self.returned = jobs


def run_failing(failing: Sequence[str], *, is_broken: bool) -> tuple[list[Job], Failing, InFlight]:
    in_flight, jobs = InFlight(4), [make_job("a"), make_job("b"), make_job("c")]
    in_flight.add(jobs)
    for job in jobs:
        job.input = job.job_id
        in_flight.mark_ready(job)
    parts, stopping = Failing(in_flight, failing, is_broken=is_broken), threading.Event()
    shared = Shared(cast(BatchWorker, parts), in_flight, Outage(stopping), Watchdog(60), stopping)
    inference = Inference(shared, cast(Any, parts), max_size=4, wait_s=0)
    if is_broken:
        with pytest.raises(RuntimeError, match="The model fails on a blank image, too"):
            inference.run()
    else:
        inference.run()
    return jobs, parts, in_flight


def test_broken_model_ends_its_thread_and_only_one_job_fails() -> None:
    jobs, parts, in_flight = run_failing("abc", is_broken=True)

    assert [job.failure is not None for job in jobs] == [True, False, False]
    assert parts.returned == jobs[1:]
    assert in_flight.is_empty


def test_job_that_fails_by_itself_ends_no_other_job() -> None:
    jobs, parts, _ = run_failing("b", is_broken=False)

    assert [job.failure is not None for job in jobs] == [False, True, False]
    assert parts.returned == ()
