"""Jobs that RQ loses in the queue end soon, with real API processes and without any worker."""

from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from image_analysis_common import keys, tasks
from support.api_processes import two_apis
from support.receivers import SECRET
from support.replies import decoded
from support.samples import base64_body, make_png
from support.waiting import wait_until

MODEL_ID = "a model without a worker"
QUEUE = tasks.queue_name(MODEL_ID)
URL = "https://receiver.example/hooks"
SOON_S = 60


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[httpx.Client]:
    variables = {"WEBHOOK_SECRET": str(SECRET), "RATE_LIMIT_MAX_REQUESTS": "1000", "MODEL_ID": MODEL_ID}
    with two_apis(redis_url, **variables) as (url, _), httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def submit(api: httpx.Client, seed: int = 1) -> str:
    answer = api.post("/analyze-image", json=base64_body(make_png(seed)) | {"webhook_url": URL}).raise_for_status()
    return str(answer.json()["job_id"])


def status(api: httpx.Client, job_id: str) -> tuple[str, str | None]:
    body = api.get(f"/analysis-status/{job_id}").raise_for_status().json()
    return body["status"], body["error"] and body["error"]["code"]


def has_ended(api: httpx.Client, job_id: str) -> bool:
    return status(api, job_id)[0] != "PENDING"


def fetch(redis: Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection=redis, serializer=tasks.SERIALIZER)


def test_lost_jobs_fail_soon_with_their_followers_and_their_webhooks_are_due(redis: Redis, api: httpx.Client) -> None:
    deleted, emptied = ([submit(api, seed) for _ in range(3)] for seed in (1, 2))

    # Like rq-dashboard's buttons for one job and for a whole queue.
    fetch(redis, deleted[0]).delete()
    Queue(QUEUE, connection=redis, serializer=tasks.SERIALIZER).empty()

    for jobs in (deleted, emptied):
        wait_until(partial(has_ended, api, jobs[0]), "the sweep finds the job", SOON_S)
    assert [status(api, job_id) for job_id in (*deleted, *emptied)] == [("FAILED", "job_lost")] * 6
    assert {decoded(job_id) for job_id in redis.zrange(keys.DELIVERIES, 0, -1)} == {*deleted, *emptied}
    assert not redis.exists(keys.image(deleted[0]), keys.image(emptied[0]))


def test_lost_leader_is_not_followed_any_more(redis: Redis, api: httpx.Client) -> None:
    lost = submit(api)
    fetch(redis, lost).delete()

    again = submit(api)

    assert [decoded(job_id) for job_id in redis.lrange(f"rq:queue:{QUEUE}", 0, -1)] == [again]
