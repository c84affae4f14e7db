"""One worker runs thousands of jobs: its memory does not grow, and everything it leaves in Redis expires."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState
from image_analysis_common.models import JobStatus
from support.images import small_images, unique

FIRST = 1000
"""After this number, caches are full, and the allocator has enough memory."""

WAVE = 500
GROWTH = 1.05


@dataclass(frozen=True)
class Endurance:
    """The statuses of a worker's jobs, and its memory after the first jobs and at the end."""

    statuses: Counter[JobStatus]
    first_bytes: int
    last_bytes: int
    everlasting: list[str]


@pytest.fixture(scope="module")
def count() -> int:
    return int(os.environ.get("CHAOS_JOBS") or 10_000)


@pytest.fixture(scope="module")
def endurance(open_scenario: OpenScenario, count: int, say: Callable[[str], None]) -> Iterator[Endurance]:
    with open_scenario("endurance") as scenario:
        worker = scenario.start_worker(is_program=True).begin()
        statuses: Counter[JobStatus] = Counter()
        first_bytes = 0
        for done in range(0, count, WAVE):
            if done == FIRST:
                first_bytes = memory_bytes(worker.pid)
            jobs = scenario.submit(unique(image) for image in islice(cycle(small_images()), WAVE))
            statuses.update(record.status for record in scenario.wait_for_end(jobs).values())
        last_bytes = memory_bytes(worker.pid)
        say(f"{count} jobs: {first_bytes / 1e6:.0f} MB after {FIRST}, {last_bytes / 1e6:.0f} MB at the end")
        yield Endurance(statuses, first_bytes, last_bytes, RedisState.read(scenario.redis, {}).everlasting)


def memory_bytes(pid: int) -> int:
    """Read the resident set size, without the pages of files."""
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def test_every_job_is_completed(endurance: Endurance, count: int) -> None:
    assert endurance.statuses == {JobStatus.COMPLETED: count}


def test_memory_does_not_grow(endurance: Endurance) -> None:
    assert endurance.last_bytes < endurance.first_bytes * GROWTH


def test_nothing_stays_in_redis_for_ever(endurance: Endurance) -> None:
    assert endurance.everlasting == []
