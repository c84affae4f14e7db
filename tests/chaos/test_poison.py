"""Images that kill their worker, cannot be decoded, or never end: each fails alone."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, settled_state
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.images import Marker, damaged_image, marked, small_images, unique
from support.waiting import wait_until

NEIGHBORS = 10
"""Good images before and after the bad one, so that it shares its batch."""
LIMIT_S = 3
EXIT_STUCK = 70


@dataclass(frozen=True)
class End:
    """How a bad image among good ones ended, and its effect on the workers."""

    bad: JobRecord
    neighbors: list[JobStatus]
    exit_codes: list[int | None]
    state: RedisState
    clean_state: RedisState

    @property
    def verdict(self) -> tuple[JobStatus, str | None]:
        return self.bad.status, self.bad.error.code if self.bad.error else None


BAD_IMAGES: dict[str, Callable[[], bytes]] = {
    "kills in decode": lambda: marked(Marker.DIES_IN_DECODE),
    "kills in classify": lambda: marked(Marker.DIES_IN_CLASSIFY),
    "hangs in decode": lambda: marked(Marker.HANGS_IN_DECODE),
    "hangs in classify": lambda: marked(Marker.HANGS_IN_CLASSIFY),
    "damaged": damaged_image,
}


@pytest.fixture(scope="module")
def ends(open_scenario: OpenScenario) -> Iterator[dict[str, Future[End]]]:
    """Run all of them at the same time: most of their time is waiting until a dead worker is noticed."""

    def run(name: str) -> End:
        good = [unique(small_images()[number]) for number in range(2 * NEIGHBORS)]
        with open_scenario("poison") as scenario:
            jobs = scenario.submit([*good[:NEIGHBORS], BAD_IMAGES[name](), *good[NEIGHBORS:]])
            crew = scenario.start_crew(spares=1, JOB_TIMEOUT_SECONDS=str(LIMIT_S))
            records = scenario.wait_for_end(jobs, timeout_s=90, crew=crew)
            if name.startswith("hangs"):

                def has_replaced() -> bool:
                    crew.tend()
                    return bool(crew.gone)

                wait_until(has_replaced, "the worker that hung has ended")
            living = frozenset(worker.name for worker in crew.working)
            return End(
                bad=records.pop(jobs[NEIGHBORS]),
                neighbors=[record.status for record in records.values()],
                exit_codes=crew.exit_codes,
                state=settled_state(scenario.redis, whole := scenario.records(jobs), living),
                clean_state=RedisState.clean(whole, living),
            )

    with ThreadPoolExecutor(8) as threads:
        yield {name: threads.submit(run, name) for name in BAD_IMAGES}


@pytest.mark.parametrize("name", ["kills in decode", "kills in classify"])
def test_image_that_kills_its_worker_fails_after_three_workers(ends: dict[str, Future[End]], name: str) -> None:
    end = ends[name].result()

    assert (end.verdict, end.exit_codes) == ((JobStatus.FAILED, "worker_lost"), [-signal.SIGKILL] * 3)


@pytest.mark.parametrize("name", ["hangs in decode", "hangs in classify"])
def test_image_that_runs_past_its_time_fails_as_such(ends: dict[str, Future[End]], name: str) -> None:
    assert ends[name].result().verdict == (JobStatus.FAILED, "job_timeout")


@pytest.mark.parametrize("name", ["hangs in decode", "hangs in classify"])
def test_worker_that_hangs_ends_itself_with_its_own_exit_code(ends: dict[str, Future[End]], name: str) -> None:
    assert {*ends[name].result().exit_codes} == {EXIT_STUCK}


def test_damaged_image_fails_as_such_and_harms_no_worker(ends: dict[str, Future[End]]) -> None:
    end = ends["damaged"].result()

    assert (end.verdict, end.exit_codes) == ((JobStatus.FAILED, "corrupt_image"), [])


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_neighbors_of_a_bad_image_complete(ends: dict[str, Future[End]], name: str) -> None:
    assert ends[name].result().neighbors == [JobStatus.COMPLETED] * 2 * NEIGHBORS


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_redis_is_clean_after_a_bad_image(ends: dict[str, Future[End]], name: str) -> None:
    end = ends[name].result()

    assert end.state == end.clean_state
