"""Clocks jump by an hour, or are an hour wrong: those of Redis, of a worker and of the API, one at a time."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis import Redis

from support.api_processes import WORKER, one_api, run_service
from support.clocks import Clock
from support.images import small_images, unique
from support.redis_server import run_redis
from support.waiting import wait_until

HOUR_S = 3600
JOBS = 80
ENDED_S = 60
READY_S = 120
LIMIT = {"RATE_LIMIT_MAX_REQUESTS": "3", "RATE_LIMIT_INTERVAL_SECONDS": "60"}

both_ways = pytest.mark.parametrize("shift_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])


@dataclass(frozen=True)
class Site:
    directory: Path
    redis_url: str
    redis_clock: Clock
    worker_log: Path
    api: httpx.Client
    limited: httpx.Client
    """Another API process, whose rate limit is `LIMIT`."""

    def count(self, event: str) -> int:
        lines = [line for line in self.worker_log.read_text().splitlines() if line.startswith("{")]
        return sum(json.loads(line)["event"] == event for line in lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("clocks")
    clock, log = Clock(directory / "redis-clock"), directory / "worker.log"
    with ExitStack() as exits:
        # Not the Redis of Debian: its allocator, jemalloc, asks for the time before libfaketime is ready.
        url = exits.enter_context(run_redis(directory, clock.variables | {"PATH": ""})).url
        exits.enter_context(run_service(WORKER, url, log, LOG_FORMAT="json"))
        apis = [
            exits.enter_context(one_api(url, **limits)) for limits in ({"RATE_LIMIT_MAX_REQUESTS": "1000000"}, LIMIT)
        ]
        clients = [exits.enter_context(httpx.Client(base_url=api, trust_env=False, timeout=30)) for api in apis]
        site = Site(directory, url, clock, log, *clients)
        wait_until(lambda: is_ready(site.api), "the worker is ready", READY_S)
        yield site


@pytest.fixture
def redis(site: Site) -> Iterator[Redis]:
    """An empty Redis, whose clock is right."""
    site.redis_clock.shift(0)
    with Redis.from_url(site.redis_url) as redis:
        wait_until(lambda: abs(redis.time()[0] - time.time()) < 10, "the clock is right")
        redis.flushall()
        wait_until(lambda: is_ready(site.api), "the worker is ready")
        yield redis


def is_ready(api: httpx.Client) -> bool:
    return api.get("/health/ready").is_success


def submit(api: httpx.Client, **headers: str) -> httpx.Response:
    headers = {"Content-Type": "image/jpeg"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return api.post("/analyze-image", content=unique(small_images()[0]), headers=headers)


def submit_many(api: httpx.Client) -> list[str]:
    return [str(submit(api).raise_for_status().json()["job_id"]) for _ in range(JOBS)]


def wait_for_ends(api: httpx.Client, jobs: list[str]) -> dict[str, str]:
    """Return each job's last status; GONE is that of a job whose record has expired."""
    statuses: dict[str, str] = {}

    def have_ended() -> bool:
        for job_id in jobs:
            if statuses.get(job_id) in (None, "PENDING", "PROCESSING"):
                answer = api.get(f"/analysis-status/{job_id}")
                statuses[job_id] = "GONE" if answer.status_code == httpx.codes.NOT_FOUND else answer.json()["status"]
        return not {"PENDING", "PROCESSING"} & {*statuses.values()}

    wait_until(have_ended, "all jobs end", ENDED_S)
    return statuses


def jump(site: Site, redis: Redis, shift_s: int) -> None:
    site.redis_clock.shift(shift_s)
    wait_until(lambda: abs(redis.time()[0] - time.time() - shift_s) < 10, "the clock of Redis has jumped")


@both_ways
def test_jobs_end_while_the_clock_of_redis_jumps(site: Site, redis: Redis, shift_s: int) -> None:
    jobs = submit_many(site.api)
    jump(site, redis, shift_s)
    later = submit_many(site.api)

    statuses = wait_for_ends(site.api, [*jobs, *later])

    assert {statuses[job_id] for job_id in later} == {"COMPLETED"}
    # After a jump forward, answers that are an hour old on the new clock have expired.
    assert {statuses[job_id] for job_id in jobs} <= {"COMPLETED"} | ({"GONE"} if shift_s > 0 else set())
    wait_until(lambda: is_ready(site.api), "the worker is ready")


@both_ways
def test_nobody_is_locked_out_when_the_clock_of_redis_jumps(site: Site, redis: Redis, shift_s: int) -> None:
    before = [submit(site.limited).status_code for _ in range(4)]
    jump(site, redis, shift_s)
    after = [submit(site.limited) for _ in range(4)]

    assert [before, [answer.status_code for answer in after]] == [[202, 202, 202, 429]] * 2
    assert 0 < int(after[-1].headers["Retry-After"]) <= 60


def test_key_still_names_its_job_when_the_clock_of_redis_goes_back(site: Site, redis: Redis) -> None:
    image, headers = unique(small_images()[0]), {"Content-Type": "image/jpeg", "Idempotency-Key": str(uuid4())}
    first = site.api.post("/analyze-image", content=image, headers=headers)
    jump(site, redis, -HOUR_S)
    again = site.api.post("/analyze-image", content=image, headers=headers)

    assert first.json()["job_id"] == again.json()["job_id"]


def test_unfinished_claim_of_a_key_ends_when_the_clock_of_redis_goes_back(site: Site, redis: Redis) -> None:
    image, headers = unique(small_images()[0]), {"Content-Type": "image/jpeg", "Idempotency-Key": str(uuid4())}
    first = site.api.post("/analyze-image", content=image, headers=headers).json()["job_id"]
    wait_for_ends(site.api, [first])
    redis.delete(f"analysis_job:{first}")  # as if the API had died between the claim and the job

    jump(site, redis, -HOUR_S)
    again = site.api.post("/analyze-image", content=image, headers=headers)

    assert (again.is_success, again.json()["job_id"] != first) == (True, True)


@both_ways
@pytest.mark.usefixtures("redis")
def test_worker_whose_clock_is_wrong_shares_the_queue(site: Site, shift_s: int, tmp_path: Path) -> None:
    clock, log = Clock(tmp_path / "clock", shift_s), tmp_path / "worker.log"
    with run_service(WORKER, site.redis_url, log, LOG_FORMAT="json", **clock.variables):
        wait_until(lambda: log.exists() and "worker_started" in log.read_text(), "the other worker serves", READY_S)
        other = Site(site.directory, site.redis_url, clock, log, site.api, site.limited)
        completed, until_s = other.count("job_completed"), time.monotonic() + 10
        while time.monotonic() < until_s:
            statuses = wait_for_ends(site.api, submit_many(site.api))  # more at once could fill the queue
            assert {*statuses.values()} == {"COMPLETED"}

        assert other.count("job_completed") > completed, "the worker with the wrong clock did nothing"
        assert [seen.count("job_abandoned") for seen in (site, other)] == [0, 0]


@both_ways
@pytest.mark.usefixtures("redis")
def test_api_whose_clock_is_wrong_accepts_and_answers(site: Site, shift_s: int, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", shift_s)
    with (
        one_api(site.redis_url, **LIMIT, **clock.variables) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as api,
    ):
        answers = [submit(api, Prefer="wait=30") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert {answer.json()["status"] for answer in answers[:3]} == {"COMPLETED"}
    assert 0 < int(answers[3].headers["Retry-After"]) <= 60
