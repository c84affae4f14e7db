"""Idempotency-Key: a request that is sent twice is accepted once."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from redis.typing import EncodableT, FieldT

from image_analysis_api.outbound.fetcher import Hold
from image_analysis_common import keys
from image_analysis_common.errors import FetchFailed
from image_analysis_common.models import JobStatus
from support.announcements import QUEUE_KEY, announce, cache_result, make_result, serve
from support.fakes import FakeFetcher, MakeClient
from support.samples import base64_body, make_png
from support.steps import Steps

pytestmark = pytest.mark.anyio

IMAGE = make_png(1)
KEY = {"Idempotency-Key": '"5d2f8a52-order-7"'}
CLAIM = keys.idempotency("198.51.100.7", sha256(b"5d2f8a52-order-7").hexdigest())
URL = "http://x.example/"


@pytest.mark.parametrize(
    "again",
    [
        {"headers": KEY, "json": base64_body(IMAGE) | {"top_k": 3}},
        {"headers": {"Idempotency-Key": "5d2f8a52-order-7"}, "json": base64_body(IMAGE), "params": {"top_k": "3"}},
    ],
)
async def test_same_request_gets_the_same_answer_and_runs_once(
    client: httpx.AsyncClient, redis: FakeRedis, again: dict[str, Any]
) -> None:
    await serve(redis)
    first = await client.post("/analyze-image", json=base64_body(IMAGE) | {"top_k": 3}, headers=KEY)
    await redis.hset(keys.job(first.json()["job_id"]), "status", JobStatus.FAILED)

    second = await client.post("/analyze-image", **again)

    assert (first.status_code, first.json(), first.headers["location"]) == (
        second.status_code,
        second.json(),
        second.headers["location"],
    )
    assert await redis.llen(QUEUE_KEY) == 1
    assert 0 < await redis.ttl(CLAIM) <= keys.WAITING_JOB_TTL_S


async def test_claim_expires_together_with_the_record_of_its_job(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    job_id = (await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)).json()["job_id"]
    waiting_s = await redis.ttl(CLAIM)

    steps.complete(job_id)

    assert waiting_s > keys.ENDED_JOB_TTL_S
    assert keys.ENDED_JOB_TTL_S - 60 < await redis.ttl(CLAIM) <= keys.ENDED_JOB_TTL_S


async def test_claim_of_a_cached_answer_expires_together_with_its_record(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())

    answer = await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)

    assert answer.json()["status"] == "COMPLETED"
    assert keys.ENDED_JOB_TTL_S - 60 < await redis.ttl(CLAIM) <= keys.ENDED_JOB_TTL_S


async def test_claim_that_was_made_anew_keeps_its_time(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    job_id = (await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)).json()["job_id"]
    await redis.hset(CLAIM, "id", "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e")

    steps.complete(job_id)

    assert await redis.ttl(CLAIM) > keys.ENDED_JOB_TTL_S


async def test_form_is_the_same_whatever_its_boundary(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    jobs = [
        (await client.post("/analyze-image", files={"file": (name, IMAGE)}, headers=KEY)).json()["job_id"]
        for name in ("a.png", "b.png")
    ]

    assert jobs[0] == jobs[1]
    assert await redis.llen(QUEUE_KEY) == 1


async def test_finished_answer_is_given_again_as_it_was(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())

    answers = [await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("other", [base64_body(make_png(2)), base64_body(IMAGE) | {"top_k": 3}, {"image_url": URL}])
async def test_other_request_with_the_key_is_422(
    client: httpx.AsyncClient, redis: FakeRedis, other: dict[str, Any]
) -> None:
    await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)

    answer = await client.post("/analyze-image", json=other, headers=KEY)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await redis.llen(QUEUE_KEY) == 1


async def test_key_of_a_request_in_progress_is_409(
    client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher
) -> None:
    await serve(redis)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def fetch(url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        entered.set()
        await go_on.wait()
        return IMAGE

    fetcher.fetch = fetch  # type: ignore[method-assign]
    first = asyncio.create_task(client.post("/analyze-image", json={"image_url": URL}, headers=KEY))
    await entered.wait()

    meanwhile = await client.post("/analyze-image", json={"image_url": URL}, headers=KEY)
    go_on.set()
    answer = await first
    after = await client.post("/analyze-image", json={"image_url": URL}, headers=KEY)

    assert (meanwhile.status_code, meanwhile.json()["code"]) == (409, "request_in_progress")
    assert answer.json() == after.json()


async def test_refused_request_frees_its_key(client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher) -> None:
    fetcher.answers[URL] = FetchFailed("The host did not answer.")
    refused = await client.post("/analyze-image", json={"image_url": URL}, headers=KEY)
    fetcher.answers[URL] = IMAGE

    accepted = await client.post("/analyze-image", json={"image_url": URL}, headers=KEY)

    assert (refused.status_code, accepted.status_code) == (400, 202)


@pytest.mark.parametrize("kinds", [("single", "batch"), ("batch", "single")])
async def test_key_of_a_request_of_another_kind_stays_claimed(
    client: httpx.AsyncClient, redis: FakeRedis, kinds: tuple[str, str]
) -> None:
    paths = {"single": "/analyze-image", "batch": "/analyze-images"}
    bodies = {"single": base64_body(IMAGE), "batch": {"images": [base64_body(IMAGE)]}}
    answers = []
    for kind in (*kinds, kinds[0]):
        answers.append(await client.post(paths[kind], json=bodies[kind], headers=KEY))
        await redis.hincrby(CLAIM, "claimed_s", -3600)

    first, _, again = (answer.json() for answer in answers)
    assert [answer.status_code for answer in answers] == [202, 422, 202]
    assert [first.get(name) for name in ("job_id", "batch_id")] == [again.get(name) for name in ("job_id", "batch_id")]


@pytest.mark.parametrize(("age_s", "status"), [(25, 422), (65, 202)])
async def test_claim_of_a_long_request_is_kept_for_its_own_time(
    client: httpx.AsyncClient, redis: FakeRedis, age_s: int, status: int
) -> None:
    await leave_claim(redis, "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e", age_s=age_s)
    await redis.hset(CLAIM, mapping={"work": keys.batch(""), "busy_s": "60.0"})

    answer = await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)

    assert answer.status_code == status


async def leave_claim(redis: FakeRedis, job_id: str, *, age_s: int) -> None:
    """Leave the claim of a process that died while it accepted a request."""
    now_s, _ = await redis.time()
    kept: dict[FieldT, EncodableT] = {"fingerprint": "another", "id": job_id, "claimed_s": now_s - age_s}
    await redis.hset(CLAIM, mapping=kept)


@pytest.mark.parametrize(("age_s", "status"), [(5, 422), (25, 202)])
async def test_claim_of_a_crashed_process_expires(
    client: httpx.AsyncClient, redis: FakeRedis, age_s: int, status: int
) -> None:
    await leave_claim(redis, "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e", age_s=age_s)

    answer = await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)

    assert answer.status_code == status


async def test_key_is_free_again_when_its_job_is_gone(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    first = await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)
    await redis.delete(keys.job(first.json()["job_id"]))
    await redis.hincrby(CLAIM, "claimed_s", -3600)

    second = await client.post("/analyze-image", json=base64_body(make_png(2)), headers=KEY)

    assert second.status_code == 202


async def test_key_is_free_at_once_when_its_ended_job_is_deleted(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    first = (await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)).json()["job_id"]
    steps.complete(first)

    await client.delete(f"/analysis/{first}")
    second = await client.post("/analyze-image", json=base64_body(make_png(2)), headers=KEY)

    assert second.status_code == 202
    assert await redis.hget(CLAIM, "id") == second.json()["job_id"].encode()


async def test_key_that_was_claimed_anew_survives_the_deletion_of_its_earlier_job(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    job_id = (await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)).json()["job_id"]
    await redis.hset(CLAIM, "id", "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e")
    steps.complete(job_id)

    await client.delete(f"/analysis/{job_id}")

    assert await redis.hget(CLAIM, "id") == b"5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"


async def test_keys_of_different_callers_are_independent(make_client: MakeClient, redis: FakeRedis) -> None:
    entries = ",".join(f"{owner}:{sha256(owner.encode()).hexdigest()}" for owner in ("alice", "bob"))
    client = await make_client(api_keys=entries)

    answers = [
        await client.post("/analyze-image", json=base64_body(make_png(n)), headers=KEY | {"X-API-Key": owner})
        for n, owner in enumerate(("alice", "bob"))
    ]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert len([key async for key in redis.scan_iter("analysis_idempotency:key:*")]) == 2


@pytest.mark.parametrize("key", ["", "a" * 256, "größe", "a\tb"])
async def test_malformed_key_is_400(client: httpx.AsyncClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]

    answer = await client.post("/analyze-image", json=base64_body(IMAGE), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.fixture
async def commands(redis: FakeRedis) -> list[str]:
    """The commands that were sent to Redis."""
    sent: list[str] = []
    execute: Callable[..., Awaitable[Any]] = redis.execute_command

    async def note(*arguments: Any, **options: Any) -> Any:
        sent.append(str(arguments[0]))
        return await execute(*arguments, **options)

    redis.execute_command = note  # type: ignore[method-assign]
    return sent


async def test_request_without_a_key_needs_no_additional_round_trips(
    client: httpx.AsyncClient, commands: list[str]
) -> None:
    await client.post("/analyze-image", json=base64_body(make_png(3)), headers=KEY)
    commands.clear()

    await client.post("/analyze-image", json=base64_body(make_png(4)))
    without = list(commands)
    await client.post("/analyze-image", json=base64_body(make_png(5)), headers={"Idempotency-Key": "k"})

    assert without == ["EVALSHA"] * 3  # the limit, the cache, the queue
    assert commands[3:] == ["EVALSHA"] * 4
