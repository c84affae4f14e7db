"""SIGTERM under load: the batch in the model is finished, all other jobs go back; a second SIGTERM ends at once."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import QUEUE, RedisState, eventually, retries_left, settled_state
from chaos.scenario import Scenario
from chaos.workers import Worker
from support.images import Marker, large_images, marked, unique
from support.replies import decoded
from support.waiting import wait_until

BATCH = 4
JOBS = 24
SLOW_S = 4.0
IN_HAND = 24
"""Jobs that a worker may have taken; those that it is just taking may be returned before the others."""
STOPPED_S = 15
"""Longest time for a batch of large images on a busy machine and a blocking pop."""


@dataclass(frozen=True)
class Left:
    """The jobs that a stopped worker left for another one, and their outcome."""

    statuses: list[str]
    queue: list[str]
    retries_left: list[int]
    final_statuses: Counter[str]
    state: RedisState
    clean_state: RedisState

    @classmethod
    def to_another(cls, scenario: Scenario, jobs: list[str]) -> "Left":
        statuses, queue, retries = scenario.statuses(jobs), queued(scenario), retries_left(scenario.redis, jobs)
        successor = scenario.start_worker(is_program=True).begin()
        records = scenario.wait_for_end(jobs)
        living = frozenset({successor.name})
        return cls(
            statuses=statuses,
            queue=queue,
            retries_left=retries,
            final_statuses=Counter(record.status.value for record in records.values()),
            state=settled_state(scenario.redis, records, living),
            clean_state=RedisState.clean(records, living),
        )


@dataclass(frozen=True)
class Stop:
    """How a worker stopped."""

    jobs: list[str]
    retries_left: list[int]
    exit_code: int
    took_s: float
    left: Left
    in_model: int = 0
    """Jobs that had entered the model, including the last batch."""
    queued_at_once: int = 0
    """Jobs in the queue while the last batch was still in the model."""


def queued(scenario: Scenario) -> list[str]:
    return [decoded(job_id) for job_id in scenario.redis.lrange(f"rq:queue:{QUEUE}", 0, -1)]


def count_in_model(worker: Worker) -> int:
    return sum(int(line["images"]) for line in worker.log.events("model_entered"))


def stop_program(scenario: Scenario) -> Stop:
    """Stop the program, started as a user starts it, while it runs large images."""
    jobs = scenario.submit(unique(large_images()[number % 3]) for number in range(80))
    retries = retries_left(scenario.redis, jobs)
    program = scenario.start_program("image_analysis_worker")
    wait_until(lambda: "COMPLETED" in scenario.statuses(jobs), "the program is at work", 60)
    program.process.send_signal(signal.SIGTERM)
    signaled_s = time.monotonic()
    exit_code = program.process.wait(timeout=30)
    return Stop(jobs, retries, exit_code, time.monotonic() - signaled_s, Left.to_another(scenario, jobs))


def stop_slow(scenario: Scenario, *, is_second_sent: bool) -> Stop:
    """Stop a worker with a slow model while one batch is in the model and more jobs are prefetched."""
    jobs = scenario.submit(marked(Marker.IS_SLOW) for _ in range(JOBS))
    retries = retries_left(scenario.redis, jobs)
    worker = scenario.start_worker({"MAX_BATCH_SIZE": str(BATCH), "SLOW_S": str(SLOW_S)}).begin()
    wait_until(lambda: "COMPLETED" in scenario.statuses(jobs), "the first batch is done")
    worker.report("classify")
    assert worker.wait_for_report()
    wait_until(lambda: len(queued(scenario)) < JOBS - count_in_model(worker), "more jobs are prefetched", SLOW_S / 2)
    worker.signal(signal.SIGTERM)
    signaled_s = time.monotonic()
    in_model = count_in_model(worker)
    at_once = eventually(lambda: len(queued(scenario)), JOBS - in_model, SLOW_S / 4)
    if is_second_sent:
        handled_s = time.monotonic()  # the jobs are back
        wait_until(lambda: time.monotonic() > handled_s + 1.2, "the second signal is no echo of the first")
        worker.signal(signal.SIGTERM)
        signaled_s = time.monotonic()
    exit_code = worker.wait()
    took_s = time.monotonic() - signaled_s
    return Stop(jobs, retries, exit_code, took_s, Left.to_another(scenario, jobs), in_model, at_once)


@pytest.fixture(scope="module")
def stops(open_scenario: OpenScenario) -> Iterator[dict[str, Future[Stop]]]:
    def run(name: str) -> Stop:
        with open_scenario("stopping") as scenario:
            return stop_program(scenario) if name == "program" else stop_slow(scenario, is_second_sent=name == "twice")

    with ThreadPoolExecutor(8) as threads:
        yield {name: threads.submit(run, name) for name in ("program", "once", "twice")}


@pytest.mark.parametrize("name", ["program", "once"])
def test_worker_exits_with_zero_and_leaves_nothing_begun(stops: dict[str, Future[Stop]], name: str) -> None:
    stop = stops[name].result()

    assert (stop.exit_code, stop.took_s < STOPPED_S) == (0, True), stop.took_s
    assert set(stop.left.statuses) == {"COMPLETED", "PENDING"}


@pytest.mark.parametrize("name", ["program", "once"])
def test_what_was_not_in_the_model_is_back_at_the_front_of_the_queue(stops: dict[str, Future[Stop]], name: str) -> None:
    stop = stops[name].result()

    pending = [job_id for job_id, status in zip(stop.jobs, stop.left.statuses, strict=True) if status == "PENDING"]

    assert sorted(stop.left.queue[:IN_HAND]) == sorted(pending[:IN_HAND])
    assert stop.left.queue[IN_HAND:] == pending[IN_HAND:]


@pytest.mark.parametrize("name", ["program", "once"])
def test_no_attempt_is_used_up_by_a_stop(stops: dict[str, Future[Stop]], name: str) -> None:
    stop = stops[name].result()

    assert stop.left.retries_left == stop.retries_left


def test_batch_in_the_model_is_finished(stops: dict[str, Future[Stop]]) -> None:
    stop = stops["once"].result()

    assert Counter(stop.left.statuses) == {"COMPLETED": stop.in_model, "PENDING": JOBS - stop.in_model}


@pytest.mark.parametrize("name", ["once", "twice"])
def test_prefetched_jobs_go_back_while_the_batch_is_still_in_the_model(
    stops: dict[str, Future[Stop]], name: str
) -> None:
    stop = stops[name].result()

    assert stop.queued_at_once == JOBS - stop.in_model


def test_second_signal_ends_the_worker_at_once(stops: dict[str, Future[Stop]]) -> None:
    stop = stops["twice"].result()

    assert (stop.exit_code != 0, stop.took_s < 1) == (True, True), (stop.exit_code, stop.took_s)
    assert stop.left.statuses.count("PROCESSING") > 0


@pytest.mark.parametrize("name", ["program", "once", "twice"])
def test_another_worker_finishes_all(stops: dict[str, Future[Stop]], name: str) -> None:
    stop = stops[name].result()

    assert stop.left.final_statuses == {"COMPLETED": len(stop.jobs)}


@pytest.mark.parametrize("name", ["program", "once", "twice"])
def test_redis_is_clean_after_a_stop(stops: dict[str, Future[Stop]], name: str) -> None:
    left = stops[name].result().left

    assert left.state == left.clean_state
