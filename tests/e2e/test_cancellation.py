"""Owners cancel and list their jobs, through every process."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from redis import Redis

from stack import Stack
from support.api_processes import one_api
from support.samples import base64_body, make_png
from support.waiting import wait_until

QUEUE = "analysis-vit-tiny-cifar10"
API_KEYS = f"carol:{sha256(b'c').hexdigest()},dave:{sha256(b'd').hexdigest()}"


@pytest.fixture
def carol(stack: Stack) -> Iterator[httpx.Client]:
    with (
        one_api(stack.redis_url, API_KEYS=API_KEYS, RATE_LIMIT_MAX_REQUESTS="1000") as url,
        httpx.Client(base_url=url, headers={"X-API-Key": "c"}, trust_env=False) as client,
    ):
        yield client


def submit(client: httpx.Client, seed: int, key: str = "c") -> str:
    image, headers = base64_body(make_png(seed)), {"X-API-Key": key}
    return str(client.post("/analyze-image", json=image, headers=headers).raise_for_status().json()["job_id"])


def status_of(client: httpx.Client, job_id: str, key: str = "c") -> dict[str, Any]:
    body: dict[str, Any] = client.get(f"/analysis-status/{job_id}?wait=10", headers={"X-API-Key": key}).json()
    return body


def is_queued(stack: Stack, job_id: str) -> bool:
    with Redis.from_url(stack.redis_url) as redis:
        return redis.lpos(f"rq:queue:{QUEUE}", job_id) is not None


def test_jobs_are_cancelled_at_every_stage_and_listed(
    stack: Stack, carol: httpx.Client, held_worker: Callable[[], None]
) -> None:
    # A job that a worker has taken but not started counts as running.
    running = submit(carol, 770)
    with Redis.from_url(stack.redis_url) as redis:
        redis.lmove(f"rq:queue:{QUEUE}", f"rq:queue:{QUEUE}:intermediate")
    waiting, followed, ended = (submit(carol, seed) for seed in (771, 772, 773))
    follower = submit(carol, 772, key="d")
    assert (is_queued(stack, running), is_queued(stack, waiting)) == (False, True)

    taken_back = [carol.delete(f"/analysis/{job_id}") for job_id in (running, waiting, followed)]
    assert not is_queued(stack, waiting)
    with Redis.from_url(stack.redis_url) as redis:
        redis.lmove(f"rq:queue:{QUEUE}:intermediate", f"rq:queue:{QUEUE}")
    held_worker()

    assert [(answer.status_code, answer.json()["status"]) for answer in taken_back] == [
        (202, "PROCESSING"),
        (200, "CANCELLED"),
        (200, "CANCELLED"),
    ]
    statuses = {job_id: status_of(carol, job_id)["status"] for job_id in (running, waiting, followed, ended)}
    assert statuses == {running: "CANCELLED", waiting: "CANCELLED", followed: "CANCELLED", ended: "COMPLETED"}
    assert status_of(carol, follower, "d")["status"] == "COMPLETED"
    assert carol.delete(f"/analysis/{ended}").status_code == 204
    assert carol.get(f"/analysis-status/{ended}").status_code == 404
    assert submit(carol, 773) != ended
    listed = carol.get("/analyses", params={"status": "CANCELLED"}).json()["analyses"]
    assert {entry["job_id"] for entry in listed} == {running, waiting, followed}
    with Redis.from_url(stack.redis_url) as redis:
        canceled = {job.decode() for job in redis.zrange(f"rq:canceled:{QUEUE}", 0, -1)}
        wait_until(lambda: not redis.exists(f"analysis_image:{followed}"), "the image is let go")
    assert {running, waiting} <= canceled


def test_deleted_result_is_computed_again_unless_other_jobs_used_it(carol: httpx.Client) -> None:
    jobs = [submit(carol, 774)]
    assert status_of(carol, jobs[0])["status"] == "COMPLETED"
    jobs.append(submit(carol, 774))

    carol.delete(f"/analysis/{jobs[0]}")
    cached = carol.post("/analyze-image", json=base64_body(make_png(774)))
    for job_id in (jobs[1], cached.json()["job_id"]):
        carol.delete(f"/analysis/{job_id}")
    again = carol.post("/analyze-image", json=base64_body(make_png(774)))

    assert (cached.status_code, again.status_code) == (200, 202)
