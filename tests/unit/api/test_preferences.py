"""`Prefer: wait=N` on a submission, `?wait=N` on a status, and the headers of a 202."""

import asyncio
import time
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_api.waiting.preferences import WAIT
from image_analysis_common import keys, tasks
from image_analysis_common.settings import BUNDLED_MODEL
from support.announcements import QUEUE_KEY
from support.fakes import MakeApp, MakeClient
from support.samples import base64_body, make_png
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(max_waiters=2)


async def post(client: httpx.AsyncClient, prefer: str | None = None, seed: int = 0) -> httpx.Response:
    headers = {} if prefer is None else {"Prefer": prefer}
    return await client.post("/analyze-image", json=base64_body(make_png(seed)), headers=headers)


async def queued_job(app: FastAPI, redis: FakeRedis, waiters: int = 1) -> str:
    """Return the ID of the job that a client waits for, as soon as there is one."""

    async def find() -> Any:
        return len(app.state.services.waiting_room) == waiters and await redis.lindex(QUEUE_KEY, 0)

    return bytes(await eventually(find, "a job is queued and waited for")).decode()


async def test_submission_returns_the_result_if_the_job_ends_in_time(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    posting = asyncio.create_task(post(client, "respond-async, wait=30"))
    job_id = await queued_job(app, redis)
    started_s = time.monotonic()
    steps.begin(job_id)
    steps.complete(job_id)

    answer = await posting

    assert time.monotonic() - started_s < 10
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=30")
    assert answer.json() == (await client.get(f"/analysis-status/{job_id}")).json()
    assert (answer.json()["status"], answer.json()["cached"]) == ("COMPLETED", False)


async def test_failure_in_time_is_the_answer_too(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    posting = asyncio.create_task(post(client, "wait=30"))
    steps.fail(await queued_job(app, redis))

    answer = await posting

    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "corrupt_image")


async def test_job_that_takes_longer_than_the_wait_is_answered_with_its_status(
    client: httpx.AsyncClient, steps: Steps
) -> None:
    usual = await post(client, seed=1)
    steps.begin(usual.json()["job_id"])
    asking = client.get(usual.headers["location"] + "?wait=1")
    started_s = time.monotonic()

    waited, status = await asyncio.gather(post(client, "wait=1"), asking)

    assert time.monotonic() - started_s > 0.9
    assert (status.status_code, status.json()["status"]) == (200, "PROCESSING")
    assert (waited.status_code, usual.status_code) == (202, 202)
    assert waited.headers.pop("preference-applied") == "wait=1"
    assert set(waited.headers) == set(usual.headers)
    assert set(waited.json()) == {"job_id", "status", "message"}


async def test_202_says_where_to_look_and_when(client: httpx.AsyncClient) -> None:
    answer = await post(client)

    status = answer.headers["location"]
    assert status == f"/analysis-status/{answer.json()['job_id']}"
    assert answer.headers["link"] == f'<{status}>; rel="status", <{status}/events>; rel="monitor"'
    assert answer.headers["retry-after"] == "1"


async def test_job_is_accepted_without_a_wait_if_too_many_clients_wait(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    waiting = [asyncio.create_task(post(client, "wait=30")) for _ in range(2)]
    job_id = await queued_job(app, redis, waiters=2)

    late = await post(client, "wait=30", seed=1)
    status = await client.get(f"/analysis-status/{job_id}?wait=30")
    steps.complete(job_id)

    assert (late.status_code, "preference-applied" in late.headers) == (202, False)
    assert (status.status_code, status.json()["status"]) == (200, "PENDING")
    assert [(await answer).status_code for answer in waiting] == [200, 200]


async def test_status_waits_for_the_end(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    job_id = (await post(client)).json()["job_id"]
    asking = asyncio.create_task(client.get(f"/analysis-status/{job_id}?wait=30"))
    assert await queued_job(app, redis) == job_id
    steps.begin(job_id)
    steps.complete(job_id)

    assert (await asking).json()["status"] == "COMPLETED"


async def test_wait_ends_when_the_process_is_about_to(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    posting = asyncio.create_task(post(client, "wait=30"))
    await queued_job(app, redis)

    app.state.services.waiting_room.dismiss()

    assert (await posting).status_code == 202


@pytest.mark.parametrize("wait", ["", "x", "-1", "61", "1.5", "٣", "9" * 30, "9" * 5000])
async def test_malformed_wait_is_400(client: httpx.AsyncClient, wait: str) -> None:
    job_id = (await post(client)).json()["job_id"]

    answer = await client.get(f"/analysis-status/{job_id}", params={"wait": wait})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_only_the_owner_may_wait(make_client: MakeClient) -> None:
    api_keys = f"alice:{sha256(b'a').hexdigest()},bob:{sha256(b'b').hexdigest()}"
    client = await make_client(api_keys=api_keys)
    client.headers["X-API-Key"] = "a"
    job_id = (await post(client)).json()["job_id"]

    others = [
        await client.get(f"/analysis-status/{job}?wait=30", headers={"X-API-Key": key})
        for job, key in ((job_id, "b"), (uuid4(), "a"))
    ]

    assert [answer.status_code for answer in others] == [404, 404]


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", "10"),
        ('respond-async,  WAIT = "7" ;foo', "7"),
        ("handling=lenient; wait=3", None),
        ("nowait=3", None),
        ("wait=-3", None),
        ("wait=3s", None),
        ("wait", None),
    ],
)
def test_preference_is_read_as_rfc_7240_writes_it(prefer: str, seconds: str | None) -> None:
    found = WAIT.search(prefer)

    assert (found and found[1]) == seconds


async def test_preference_for_longer_than_a_minute_is_a_minute(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    posting = asyncio.create_task(post(client, "wait=600"))
    steps.complete(await queued_job(app, redis))

    assert (await posting).headers["preference-applied"] == "wait=60"


async def test_follower_has_the_position_of_the_job_that_it_follows(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    jobs = [(await post(client, seed=seed)).json()["job_id"] for seed in (1, 2, 2, 3)]
    now_s, _ = await redis.time()
    ended = {f"job {n}": now_s + keys.FINISHED_JOB_TTL_S - n // 2 for n in range(8)}
    await redis.zadd(f"rq:finished:{tasks.queue_name(BUNDLED_MODEL)}", ended)

    bodies = [(await client.get(f"/analysis-status/{job_id}")).json() for job_id in jobs]

    assert [body["queue_position"] for body in bodies] == [1, 2, 2, 3]
    # Eight ended in four seconds; a second may have passed since.
    assert bodies[3]["estimated_wait_ms"] in (1500, 1875)
