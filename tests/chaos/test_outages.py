"""Redis goes away: the workers wait, say so once, and go on where they were; nobody is blamed for it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chaos.books import Books, retries_left, settled_books
from chaos.conftest import OpenStage
from chaos.stage import Stage
from chaos.workers import Worker
from support.images import large_images, small_images, unique
from support.waiting import wait_until

JOBS = 240
RECOVERY_S = 20
IDLE_WORKERS = 6


@dataclass(frozen=True)
class Outage:
    """What is to be seen after Redis was away in the midst of work."""

    final_statuses: Counter[str]
    took_s: float
    """From the return of Redis to the end of the last job."""
    exit_codes: list[int | None]
    state_lines: list[list[str]]
    """For each worker the changes that it told of."""
    completions: Counter[int]
    """How many jobs were told of as completed once, twice, ..."""
    retries_left: list[int]
    first_retries_left: list[int]
    books: Books
    balanced_books: Books


def changes(worker: Worker) -> list[str]:
    """Return what a worker has logged of Redis's absence and return."""
    return [line["event"] for line in worker.log.events("store_unavailable", "store_available")]


def observe(stage: Stage, workers: list[Worker], jobs: list[str], retries: list[int], came_back_s: float) -> Outage:
    records = stage.wait_for_end(jobs, timeout_s=40)
    took_s = time.monotonic() - came_back_s
    # The last job may end on one worker while the other one still waits before it asks Redis again.
    wait_until(
        lambda: all(changes(worker)[-1:] != ["store_unavailable"] for worker in workers), "all workers are back", 10
    )
    living = frozenset(worker.name for worker in workers)
    ends = Counter(line["job_id"] for worker in workers for line in worker.log.events("job_completed"))
    return Outage(
        final_statuses=Counter(record.status.value for record in records.values()),
        took_s=took_s,
        exit_codes=[worker.exit_code for worker in workers],
        state_lines=[changes(worker) for worker in workers],
        completions=Counter(ends.values()),
        retries_left=retries_left(stage.redis, jobs),
        first_retries_left=retries,
        books=settled_books(stage.redis, records, living),
        balanced_books=Books.balanced(records, living),
    )


def wait_for(duration_s: float) -> None:
    until_s = time.monotonic() + duration_s
    wait_until(lambda: time.monotonic() >= until_s, "the outage is over", duration_s + 10)


def restart(stage: Stage, _outage_s: float) -> None:
    stage.redis_server.stop()
    stage.redis_server.start()


def stop(stage: Stage, outage_s: float) -> None:
    stage.redis_server.kill()
    wait_for(outage_s)
    stage.redis_server.start()


def pause(stage: Stage, outage_s: float) -> None:
    with stage.redis_server.paused():
        wait_for(outage_s)


def interrupt_work(stage: Stage, fault: Callable[[Stage, float], None], outage_s: float) -> Outage:
    """Two workers, a full queue, and Redis away in the midst of it."""
    images = [*large_images(), *small_images()]
    jobs = stage.submit(unique(images[number % len(images)]) for number in range(JOBS))
    retries = retries_left(stage.redis, jobs)
    workers = [stage.start_worker(is_program=True).begin() for _ in range(2)]
    assert len({worker.name for worker in workers}) == 2
    wait_until(lambda: stage.statuses(jobs).count("COMPLETED") > JOBS // 10, "the workers are at work", 60)
    assert stage.statuses(jobs).count("COMPLETED") < JOBS, "the outage would come after the work"
    fault(stage, outage_s)
    came_back_s = time.monotonic()
    return observe(stage, workers, jobs, retries, came_back_s)


def interrupt_hand_over(stage: Stage, outage_s: float) -> Outage:
    """Idle workers, and Redis paused within the millisecond in which they take a job each."""
    workers = [stage.start_worker(is_program=True).begin() for _ in range(IDLE_WORKERS)]
    assert len({worker.name for worker in workers}) == IDLE_WORKERS
    jobs = stage.submit(unique(image) for image in small_images()[:IDLE_WORKERS])
    with stage.redis_server.paused():
        wait_for(outage_s)
    came_back_s = time.monotonic()
    return observe(stage, workers, jobs, [], came_back_s)


@pytest.fixture(scope="module")
def outages(open_stage: OpenStage, outage_s: float) -> Iterator[dict[str, Future[Outage]]]:
    """Have them at the same time: most of it is waiting."""
    scenes: dict[str, Callable[[Stage], Outage]] = {
        "restarted": lambda stage: interrupt_work(stage, restart, outage_s),
        "stopped": lambda stage: interrupt_work(stage, stop, outage_s),
        "paused": lambda stage: interrupt_work(stage, pause, outage_s),
        "paused at the hand-over": lambda stage: interrupt_hand_over(stage, outage_s),
    }

    def run(name: str) -> Outage:
        with open_stage("outage") as stage:
            return scenes[name](stage)

    with ThreadPoolExecutor(8) as threads:
        yield {name: threads.submit(run, name) for name in scenes}


NAMES = ["restarted", "stopped", "paused", "paused at the hand-over"]


@pytest.mark.parametrize("name", NAMES)
def test_all_jobs_complete_soon_after_redis_is_back(outages: dict[str, Future[Outage]], name: str) -> None:
    outage = outages[name].result()

    assert outage.final_statuses == {"COMPLETED": outage.final_statuses.total()}
    assert outage.took_s < RECOVERY_S


@pytest.mark.parametrize("name", NAMES)
def test_workers_live_on(outages: dict[str, Future[Outage]], name: str) -> None:
    assert {*outages[name].result().exit_codes} == {None}


@pytest.mark.parametrize("name", ["stopped", "paused"])
def test_each_change_is_one_log_line(outages: dict[str, Future[Outage]], name: str) -> None:
    assert outages[name].result().state_lines == [["store_unavailable", "store_available"]] * 2


@pytest.mark.parametrize("name", NAMES)
def test_no_change_is_told_of_twice(outages: dict[str, Future[Outage]], name: str) -> None:
    for lines in outages[name].result().state_lines:
        assert lines == ["store_unavailable", "store_available"] * (len(lines) // 2)
        assert len(lines) <= 2


@pytest.mark.parametrize("name", NAMES)
def test_each_job_completes_once(outages: dict[str, Future[Outage]], name: str) -> None:
    outage = outages[name].result()

    assert outage.completions == {1: outage.final_statuses.total()}


@pytest.mark.parametrize("name", ["restarted", "stopped", "paused"])
def test_outage_uses_up_no_attempt(outages: dict[str, Future[Outage]], name: str) -> None:
    outage = outages[name].result()

    # A start whose answer the outage swallowed may have happened: that attempt is gone, and it is the only one.
    used = [first - left for first, left in zip(outage.first_retries_left, outage.retries_left, strict=True)]
    assert set(used) <= ({0, 1} if name == "paused" else {0})


@pytest.mark.parametrize("name", NAMES)
def test_books_balance_after_an_outage(outages: dict[str, Future[Outage]], name: str) -> None:
    outage = outages[name].result()

    assert outage.books == outage.balanced_books
