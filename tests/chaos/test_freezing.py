"""A worker is frozen and thaws, like a virtual machine that is moved: what it does too late changes nothing."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, settled_state
from chaos.scenario import Scenario
from chaos.statuses import StatusPoller
from chaos.workers import Worker
from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.store.client import connect
from image_analysis_common.keys import HEARTBEAT_INTERVAL_S, WORKER_TTL_S
from support.images import large_images, small_images, unique
from support.waiting import wait_until

RECOVERY_S = 20
MOST_JOBS = 300


@dataclass(frozen=True)
class Thaw:
    """The outcome of the jobs of a worker that was considered dead but was not."""

    final_statuses: Counter[str]
    recovery_s: float
    """Time from the freeze to the end of the last job."""
    poller: StatusPoller
    exit_codes: list[int | None]
    state: RedisState
    clean_state: RedisState


def freeze(scenario: Scenario, workers: list[Worker], jobs: list[str], frozen_s: float, poller: StatusPoller) -> Thaw:
    """Let a frozen worker thaw after a time, and read its jobs when all have ended."""
    begun_s = time.monotonic()
    wait_until(lambda: time.monotonic() > begun_s + frozen_s, "the worker was frozen for long enough")
    workers[0].signal(signal.SIGCONT)
    records = scenario.wait_for_end(jobs)
    recovery_s = time.monotonic() - begun_s
    living = frozenset(worker.name for worker in workers)
    state = settled_state(scenario.redis, records, living)
    poller.stop()
    return Thaw(
        final_statuses=Counter(record.status.value for record in records.values()),
        recovery_s=recovery_s,
        poller=poller,
        exit_codes=[worker.exit_code for worker in workers],
        state=state,
        clean_state=RedisState.clean(records, living),
    )


def keep_busy(scenario: Scenario, *workers: Worker) -> list[str]:
    """Submit images until each of the workers has completed one of them; return their jobs."""
    jobs: list[str] = []

    def are_busy() -> bool:
        if len(jobs) < MOST_JOBS:
            jobs.extend(scenario.submit(map(unique, large_images())))
        return all({line["job_id"] for line in worker.log.events("job_completed")} & {*jobs} for worker in workers)

    wait_until(are_busy, "the workers are at work")
    return jobs


def freeze_at_work(scenario: Scenario) -> Thaw:
    """Freeze a worker with jobs for longer than it may be silent, so that others run its jobs."""
    workers = [scenario.start_worker(is_program=True).begin() for _ in range(2)]
    poller = StatusPoller(scenario.redis_server.url)
    poller.start()
    jobs = keep_busy(scenario, *workers)
    poller.watch(jobs)
    assert workers[0].name
    workers[0].signal(signal.SIGSTOP)
    return freeze(scenario, workers, jobs, WORKER_TTL_S + 2 * HEARTBEAT_INTERVAL_S, poller)


def freeze_in_the_pop(scenario: Scenario) -> Thaw:
    """Freeze a worker in its pop for a shorter time, but long enough that others take the popped job."""
    workers = [scenario.start_worker(is_program=True).begin() for _ in range(2)]
    assert len({worker.name for worker in workers}) == 2
    poller = StatusPoller(scenario.redis_server.url)
    poller.start()
    workers[0].signal(signal.SIGSTOP)
    jobs: list[str] = []
    for image in islice(small_images(), 6):
        some = scenario.submit([unique(image)])
        poller.watch(some)
        jobs += some
    return freeze(scenario, workers, jobs, WORKER_TTL_S - 1, poller)


SCENES = {"at work": freeze_at_work, "in the pop": freeze_in_the_pop}


@pytest.fixture(scope="module")
def thaws(open_scenario: OpenScenario) -> Iterator[dict[str, Future[Thaw]]]:
    def run(name: str) -> Thaw:
        with open_scenario("freezing") as scenario:
            return SCENES[name](scenario)

    with ThreadPoolExecutor(8) as threads:
        yield {name: threads.submit(run, name) for name in SCENES}


@pytest.mark.parametrize("name", SCENES)
def test_all_jobs_complete_in_time(thaws: dict[str, Future[Thaw]], name: str) -> None:
    thaw = thaws[name].result()

    assert thaw.final_statuses == {"COMPLETED": thaw.final_statuses.total()}
    assert thaw.recovery_s < RECOVERY_S


@pytest.mark.parametrize("name", SCENES)
def test_what_a_thawed_worker_does_too_late_changes_no_answer(thaws: dict[str, Future[Thaw]], name: str) -> None:
    poller = thaws[name].result().poller

    assert (poller.wrong_steps(), poller.changed_answers) == ({}, [])


@pytest.mark.parametrize("name", SCENES)
def test_thawed_worker_works_on_and_redis_is_clean(thaws: dict[str, Future[Thaw]], name: str) -> None:
    thaw = thaws[name].result()

    assert thaw.exit_codes == [None, None]
    assert thaw.state == thaw.clean_state


def test_thawed_worker_brings_nothing_back_of_jobs_that_were_forgotten(open_scenario: OpenScenario) -> None:
    with open_scenario("forgotten") as scenario:
        frozen, other = (scenario.start_worker(is_program=True).begin() for _ in range(2))
        jobs = keep_busy(scenario, frozen, other)
        frozen.signal(signal.SIGSTOP)
        scenario.wait_for_end(jobs)
        asyncio.run(forget(scenario.redis_server.url, jobs))

        frozen.signal(signal.SIGCONT)
        # It takes new jobs when it has ended those that it had.
        late = keep_busy(scenario, frozen)
        scenario.wait_for_end(late)

        assert [key for key in scenario.redis.scan_iter() if key.decode().split(":")[-1] in jobs] == []
        assert RedisState.read(scenario.redis, {}).finished == set(late)


async def forget(redis_url: str, jobs: list[str]) -> None:
    async with connect(redis_url) as redis:
        for job_id in jobs:
            assert await Cancellation(redis).cancel(UUID(job_id), None) is Outcome.FORGOTTEN
