"""Redis is down: the workers wait, log it once, and continue where they were; no job loses an attempt."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, retries_left, settled_state
from chaos.scenario import Scenario
from chaos.workers import Worker
from support.images import large_images, small_images, unique
from support.waiting import wait_until

JOBS = 240
RECOVERY_S = 20
IDLE_WORKERS = 6


@dataclass(frozen=True)
class Outage:
    """What was observed after Redis was down during work."""

    final_statuses: Counter[str]
    took_s: float
    """Time from the return of Redis to the end of the last job."""
    exit_codes: list[int | None]
    state_lines: list[list[str]]
    """For each worker, the changes that it logged."""
    completions: Counter[int]
    """How many jobs were logged as completed once, twice, ..."""
    retries_left: list[int]
    first_retries_left: list[int]
    state: RedisState
    clean_state: RedisState


def changes(worker: Worker) -> list[str]:
    """Return a worker's log events at the start and the end of the outage."""
    return [line["event"] for line in worker.log.events("store_unavailable", "store_available")]


def count_ends(workers: list[Worker]) -> Counter[str]:
    """Count how often each job was logged as completed."""
    return Counter(line["job_id"] for worker in workers for line in worker.log.events("job_completed"))


def observe(
    scenario: Scenario, workers: list[Worker], jobs: list[str], retries: list[int], came_back_s: float
) -> Outage:
    records = scenario.wait_for_end(jobs, timeout_s=40)
    took_s = time.monotonic() - came_back_s
    # The last job may end on one worker while the other one still waits before it retries.
    wait_until(
        lambda: all(changes(worker)[-1:] != ["store_unavailable"] for worker in workers), "all workers are back", 10
    )
    completed = {job_id for job_id, record in records.items() if record.status.value == "COMPLETED"}
    # A worker reports an end after it has written it.
    wait_until(lambda: completed <= count_ends(workers).keys(), "the ends are reported")
    living = frozenset(worker.name for worker in workers)
    return Outage(
        final_statuses=Counter(record.status.value for record in records.values()),
        took_s=took_s,
        exit_codes=[worker.exit_code for worker in workers],
        state_lines=[changes(worker) for worker in workers],
        completions=Counter(count_ends(workers).values()),
        retries_left=retries_left(scenario.redis, jobs),
        first_retries_left=retries,
        state=settled_state(scenario.redis, records, living),
        clean_state=RedisState.clean(records, living),
    )


def wait_for(duration_s: float) -> None:
    until_s = time.monotonic() + duration_s
    wait_until(lambda: time.monotonic() >= until_s, "the outage is over", duration_s + 10)


def hold_writes(scenario: Scenario) -> None:
    """Let Redis run no more scripts: it could end before it answers one, and an unanswered start is an attempt."""
    scenario.redis.client_pause(30_000, all=False)


def restart(scenario: Scenario, _outage_s: float) -> None:
    hold_writes(scenario)
    scenario.redis_server.stop()
    scenario.redis_server.start()


def stop(scenario: Scenario, outage_s: float) -> None:
    hold_writes(scenario)
    scenario.redis_server.kill()
    wait_for(outage_s)
    scenario.redis_server.start()


def pause(scenario: Scenario, outage_s: float) -> None:
    with scenario.redis_server.paused():
        wait_for(outage_s)


def interrupt_work(scenario: Scenario, fault: Callable[[Scenario, float], None], outage_s: float) -> Outage:
    """Two workers and a full queue; Redis fails during the work."""
    images = [*large_images(), *small_images()]
    workers = [scenario.start_worker(is_program=True).begin() for _ in range(2)]
    assert len({worker.name for worker in workers}) == 2
    for worker in workers:
        worker.signal(signal.SIGSTOP)  # all jobs are in the queue before the first one is taken
    jobs = scenario.submit(unique(images[number % len(images)]) for number in range(JOBS))
    retries = retries_left(scenario.redis, jobs)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    wait_until(lambda: scenario.statuses(jobs).count("COMPLETED") > JOBS // 10, "the workers are at work", 60)
    assert scenario.statuses(jobs).count("COMPLETED") < JOBS, "the outage would come after the work"
    fault(scenario, outage_s)
    came_back_s = time.monotonic()
    return observe(scenario, workers, jobs, retries, came_back_s)


def interrupt_hand_over(scenario: Scenario, outage_s: float) -> Outage:
    """Idle workers; Redis is paused within the millisecond in which each takes a job."""
    workers = [scenario.start_worker(is_program=True).begin() for _ in range(IDLE_WORKERS)]
    assert len({worker.name for worker in workers}) == IDLE_WORKERS
    jobs = scenario.submit(unique(image) for image in small_images()[:IDLE_WORKERS])
    with scenario.redis_server.paused():
        wait_for(outage_s)
    came_back_s = time.monotonic()
    return observe(scenario, workers, jobs, [], came_back_s)


@pytest.fixture(scope="module")
def outages(open_scenario: OpenScenario, outage_s: float) -> Iterator[dict[str, Future[Outage]]]:
    """Run the scenarios at the same time, because most of their time is waiting."""
    scenes: dict[str, Callable[[Scenario], Outage]] = {
        "restarted": lambda scenario: interrupt_work(scenario, restart, outage_s),
        "stopped": lambda scenario: interrupt_work(scenario, stop, outage_s),
        "paused": lambda scenario: interrupt_work(scenario, pause, outage_s),
        "paused at the hand-over": lambda scenario: interrupt_hand_over(scenario, outage_s),
    }

    def run(name: str) -> Outage:
        with open_scenario("outage") as scenario:
            return scenes[name](scenario)

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
def test_no_change_is_logged_twice(outages: dict[str, Future[Outage]], name: str) -> None:
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

    # A start whose answer was lost in the outage may have been executed: it uses up one attempt, and only one.
    used = [first - left for first, left in zip(outage.first_retries_left, outage.retries_left, strict=True)]
    assert set(used) <= ({0, 1} if name == "paused" else {0})


@pytest.mark.parametrize("name", NAMES)
def test_redis_is_clean_after_an_outage(outages: dict[str, Future[Outage]], name: str) -> None:
    outage = outages[name].result()

    assert outage.state == outage.clean_state
