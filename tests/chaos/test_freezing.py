"""A worker is frozen and thaws, as in a virtual machine that was moved: what it does too late changes nothing."""

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

from chaos.books import Books, settled_books
from chaos.conftest import OpenStage
from chaos.stage import Stage
from chaos.statuses import StatusPoller
from chaos.workers import Worker
from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.store.client import connect
from image_analysis_common.keys import HEARTBEAT_INTERVAL_S, WORKER_TTL_S
from support.images import large_images, small_images, unique
from support.waiting import wait_until

RECOVERY_S = 20


@dataclass(frozen=True)
class Thaw:
    """What came of the jobs of a worker that was taken for dead and was not."""

    final_statuses: Counter[str]
    recovery_s: float
    """From the freezing to the end of the last job, while the worker was still frozen or just thawed."""
    poller: StatusPoller
    exit_codes: list[int | None]
    books: Books
    balanced_books: Books


def freeze(stage: Stage, workers: list[Worker], jobs: list[str], frozen_s: float, poller: StatusPoller) -> Thaw:
    """Let a frozen worker thaw after a time, and look at its jobs when all have settled."""
    begun_s = time.monotonic()
    wait_until(lambda: time.monotonic() > begun_s + frozen_s, "the worker was frozen for long enough")
    workers[0].signal(signal.SIGCONT)
    records = stage.wait_for_end(jobs)
    recovery_s = time.monotonic() - begun_s
    living = frozenset(worker.name for worker in workers)
    books = settled_books(stage.redis, records, living)
    poller.stop()
    return Thaw(
        final_statuses=Counter(record.status.value for record in records.values()),
        recovery_s=recovery_s,
        poller=poller,
        exit_codes=[worker.exit_code for worker in workers],
        books=books,
        balanced_books=Books.balanced(records, living),
    )


def freeze_at_work(stage: Stage) -> Thaw:
    """Longer than a worker may be silent, with jobs in hand that others run meanwhile."""
    jobs = stage.submit(unique(large_images()[number % 3]) for number in range(60))
    workers = [stage.start_worker(is_program=True).begin() for _ in range(2)]
    poller = StatusPoller(stage.redis_server.url)
    poller.watch(jobs)
    poller.start()
    wait_until(lambda: {"COMPLETED", "PROCESSING"} <= {*stage.statuses(jobs)}, "the workers are at work")
    assert workers[0].name
    workers[0].signal(signal.SIGSTOP)
    return freeze(stage, workers, jobs, WORKER_TTL_S + 2 * HEARTBEAT_INTERVAL_S, poller)


def freeze_in_the_pop(stage: Stage) -> Thaw:
    """Shorter than that, but too long to be still between pop and start: others take the job from there."""
    workers = [stage.start_worker(is_program=True).begin() for _ in range(2)]
    assert len({worker.name for worker in workers}) == 2
    poller = StatusPoller(stage.redis_server.url)
    poller.start()
    workers[0].signal(signal.SIGSTOP)
    jobs: list[str] = []
    for image in islice(small_images(), 6):
        some = stage.submit([unique(image)])
        poller.watch(some)
        jobs += some
    return freeze(stage, workers, jobs, WORKER_TTL_S - 1, poller)


SCENES = {"at work": freeze_at_work, "in the pop": freeze_in_the_pop}


@pytest.fixture(scope="module")
def thaws(open_stage: OpenStage) -> Iterator[dict[str, Future[Thaw]]]:
    def run(name: str) -> Thaw:
        with open_stage("freezing") as stage:
            return SCENES[name](stage)

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
def test_thawed_worker_works_on_and_the_books_balance(thaws: dict[str, Future[Thaw]], name: str) -> None:
    thaw = thaws[name].result()

    assert thaw.exit_codes == [None, None]
    assert thaw.books == thaw.balanced_books


def test_thawed_worker_brings_nothing_back_of_jobs_that_were_forgotten(open_stage: OpenStage) -> None:
    with open_stage("forgotten") as stage:
        jobs = stage.submit(unique(large_images()[number % 3]) for number in range(60))
        frozen, other = (stage.start_worker(is_program=True).begin() for _ in range(2))
        wait_until(
            lambda: frozen.log.events("job_completed") and other.log.events("job_completed"), "the workers are at work"
        )
        frozen.signal(signal.SIGSTOP)
        stage.wait_for_end(jobs)
        asyncio.run(forget(stage.redis_server.url, jobs))

        frozen.signal(signal.SIGCONT)
        # It gets on to new jobs once it has ended those that it had in hand.
        late = stage.submit(unique(large_images()[number % 3]) for number in range(60))
        stage.wait_for_end(late)
        told = {line["job_id"] for line in frozen.log.events("job_completed")}

        assert told & set(late)
        assert [key for key in stage.redis.scan_iter() if key.decode().split(":")[-1] in jobs] == []
        assert Books.read(stage.redis, {}).finished == set(late)


async def forget(redis_url: str, jobs: list[str]) -> None:
    async with connect(redis_url) as redis:
        for job_id in jobs:
            assert await Cancellation(redis).cancel(UUID(job_id), None) is Outcome.FORGOTTEN
