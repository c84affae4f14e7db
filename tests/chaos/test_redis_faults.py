"""What operators and disks do to Redis in the middle of work: it drops its connections, becomes a replica, copies
another one, is emptied, or its disk is full."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from chaos.scenario import Submitter
from image_analysis_common import keys
from image_analysis_common.rq_keys import PERMANENT_PREFIXES
from image_analysis_common.settings import BUNDLED_MODEL
from support.api_processes import WORKER, one_api, run_service
from support.images import small_images, unique
from support.redis_server import RedisServer, run_redis
from support.waiting import wait_until

JOBS = 60
ENDED_S = 60
READY_S = 120
KILLS = 15
DISK_BYTES = 200_000
"""What the disk still takes: some tens of images."""

FINAL = ("COMPLETED", "FAILED", "GONE")


@dataclass(frozen=True)
class Site:
    server: RedisServer
    redis: Redis
    api: httpx.Client
    worker: int
    directory: Path

    def submit(self) -> str:
        """Submit a new image until it is accepted, with the same key; return its job."""
        image, key = unique(small_images()[0]), str(uuid4())
        return wait_until(lambda: self.try_to_submit(image, key), "the image is accepted")

    def try_to_submit(self, image: bytes, key: str) -> str | None:
        """Return the image's job; None if Redis refuses it."""
        headers = {"Content-Type": "image/jpeg", "Idempotency-Key": key}
        answer = self.api.post("/analyze-image", content=image, headers=headers)
        if answer.is_success:
            return str(answer.json()["job_id"])
        assert answer.json()["code"] in ("store_unavailable", "request_in_progress")
        return None

    def status(self, job_id: str) -> str:
        answer = self.api.get(f"/analysis-status/{job_id}")
        return "GONE" if answer.status_code == httpx.codes.NOT_FOUND else str(answer.json().get("status"))

    def wait_for_ends(self, jobs: list[str]) -> list[str]:
        wait_until(lambda: all(self.status(job_id) in FINAL for job_id in jobs), "all jobs end", ENDED_S)
        return [self.status(job_id) for job_id in jobs]

    def is_ready(self) -> bool:
        return self.api.get("/health/ready").is_success


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("faults")
    with (
        run_redis(directory) as server,
        run_service(WORKER, server.url, directory / "worker.log", LOG_FORMAT="json") as worker,
        one_api(server.url, directory / "api.log", RATE_LIMIT_MAX_REQUESTS="1000000") as url,
        Redis.from_url(server.url) as redis,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as api,
    ):
        site = Site(server, redis, api, worker, directory)
        wait_until(site.is_ready, "the worker is ready", READY_S)
        yield site
        log = (directory / "worker.log").read_text().splitlines()
        assert {json.loads(line)["level"] for line in log if line.startswith("{")} <= {"info", "warning"}


def test_killed_connections_cost_no_job(site: Site) -> None:
    jobs = [site.submit() for _ in range(JOBS)]
    for _ in range(KILLS):
        for kind in ("normal", "pubsub"):
            site.redis.execute_command("CLIENT", "KILL", "TYPE", kind)
        jobs.append(site.submit())

    assert set(site.wait_for_ends(jobs)) == {"COMPLETED"}
    assert len({*jobs}) == JOBS + KILLS


def test_jobs_wait_while_redis_is_a_replica(site: Site) -> None:
    jobs = [site.submit() for _ in range(JOBS)]
    site.redis.replicaof("127.0.0.1", "1")
    try:
        assert site.try_to_submit(unique(small_images()[0]), str(uuid4())) is None
        assert site.status(jobs[0]) in ("PENDING", "PROCESSING", "COMPLETED")
    finally:
        site.redis.replicaof("NO", "ONE")

    assert set(site.wait_for_ends([*jobs, site.submit()])) == {"COMPLETED"}


def test_emptied_redis_forgets_its_jobs_and_takes_new_ones(site: Site) -> None:
    jobs = [site.submit() for _ in range(JOBS)]
    os.kill(site.worker, signal.SIGSTOP)  # in the middle of its work
    jobs.append(site.submit())
    waited: list[int] = []
    waiter = threading.Thread(
        target=lambda: waited.append(site.api.get(f"/analysis-status/{jobs[-1]}", params={"wait": 3}).status_code)
    )
    waiter.start()
    site.redis.flushall()
    site.redis.script_flush()
    os.kill(site.worker, signal.SIGCONT)
    new = [site.submit() for _ in range(JOBS)]
    waiter.join()

    assert set(site.wait_for_ends(new)) == {"COMPLETED"}
    assert {site.status(job_id) for job_id in jobs} == {"GONE"}
    assert waited == [404]
    wait_until(lambda: site.redis.exists(keys.announcement(BUNDLED_MODEL)), "the worker is announced again", 10)
    assert site.is_ready()
    check_lifetimes(site.redis)


@pytest.mark.parametrize("content", ["nothing", "other jobs"])
def test_redis_that_has_copied_another_one_has_only_its_jobs(site: Site, tmp_path: Path, content: str) -> None:
    with run_redis(tmp_path) as other, Redis.from_url(other.url) as source:
        source.config_set("repl-diskless-sync-delay", 0)
        copied = submit_directly(other.url) if content == "other jobs" else []
        jobs = [site.submit() for _ in range(JOBS)]
        os.kill(site.worker, signal.SIGSTOP)  # in the middle of its work
        jobs.append(site.submit())
        site.redis.replicaof(*map(str, other.address))
        wait_until(lambda: site.redis.info("replication").get("master_link_status") == "up", "the data is replaced")
        site.redis.replicaof("NO", "ONE")
        os.kill(site.worker, signal.SIGCONT)
        new = [site.submit() for _ in range(JOBS)]

    assert set(site.wait_for_ends([*copied, *new])) == {"COMPLETED"}
    assert {site.status(job_id) for job_id in jobs} == {"GONE"}
    wait_until(site.is_ready, "the worker is announced again", 10)
    check_lifetimes(site.redis)


def submit_directly(redis_url: str) -> list[str]:
    submitter = Submitter(redis_url)
    jobs = submitter.submit(unique(small_images()[0]) for _ in range(JOBS))
    submitter.close()
    return jobs


def check_lifetimes(redis: Redis) -> None:
    forever = [key.decode() for key in redis.scan_iter() if redis.ttl(key) == -1]
    assert [key for key in forever if not key.startswith((*keys.PERMANENT_PREFIXES, *PERMANENT_PREFIXES))] == []


def test_full_disk_refuses_images_and_keeps_the_accepted_ones(site: Site) -> None:
    # Redis 7.0 that has copied another one cuts its append-only file at a wrong place when a write fails.
    site.server.kill()
    site.server.start()
    accepted = [site.submit()]
    file = max(site.directory.rglob("*.aof"), key=lambda file: file.stat().st_mtime)
    site.server.limit_files(file.stat().st_size + DISK_BYTES)
    while (job_id := site.try_to_submit(unique(small_images()[0]), str(uuid4()))) is not None:
        accepted.append(job_id)
    assert site.status(accepted[0]) in ("PENDING", "PROCESSING", "COMPLETED")
    assert not site.is_ready()
    with pytest.raises(ResponseError, match=r"^MISCONF"):  # for the health checks, Redis is alive then
        site.redis.ping()

    site.server.limit_files(-1)
    accepted.append(site.submit())
    site.server.kill()
    site.server.start()

    assert set(site.wait_for_ends([*accepted, site.submit()])) == {"COMPLETED"}
