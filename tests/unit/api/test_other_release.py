"""A record of another release that this one cannot read is a 503, and is left out of lists."""

import asyncio
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fakeredis import FakeRedis as SyncRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from redis.typing import EncodableT, FieldT

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.settings import BUNDLED_MODEL
from support.announcements import MODEL, announce, cache_result, make_result
from support.classifiers import make_classifier, store
from support.fakes import MakeClient
from support.samples import base64_body, make_png
from support.waiting import eventually

pytestmark = pytest.mark.anyio

IMAGES = [make_png(seed) for seed in range(3)]
FAULTS: dict[str, dict[FieldT, EncodableT]] = {
    "another status": {"status": b"PAUSED"},
    "another form of a result": {"result": b'{"labels": ["cat"]}'},
    "another number": {"top_k": b"many"},
    "another encoding": {"model": b"\xff"},
}
OTHER_HISTORY: dict[FieldT, EncodableT] = {"history": b"PENDING PAUSED"}


async def submit(client: httpx.AsyncClient, image: bytes = IMAGES[0], /, **headers: str) -> httpx.Response:
    return await client.post("/analyze-image", json=base64_body(image), headers=headers)


async def spoil(redis: FakeRedis, job_id: str, fields: dict[FieldT, EncodableT] = FAULTS["another status"]) -> None:
    await redis.hset(keys.job(job_id), mapping=fields)


def check_unreadable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "unreadable_record")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("fault", FAULTS)
async def test_single_job_is_a_503_to_retry(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, fault: str
) -> None:
    job_id = (await submit(client)).json()["job_id"]
    await spoil(redis, job_id, FAULTS[fault])

    for path in ("", "?wait=30", "/events"):
        check_unreadable(await client.get(f"/analysis-status/{job_id}{path}"))
    assert len(app.state.services.waiting_room) == 0


async def test_job_with_an_unreadable_history_can_be_asked_for_and_not_followed(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    job_id = (await submit(client)).json()["job_id"]
    await spoil(redis, job_id, OTHER_HISTORY)

    assert (await client.get(f"/analysis-status/{job_id}?wait=30")).json()["status"] == "PENDING"
    check_unreadable(await client.get(f"/analysis-status/{job_id}/events"))


async def test_repeated_request_with_its_key_is_a_503_to_retry(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    key = {"Idempotency-Key": "k"}
    job_id = (await submit(client, **key)).json()["job_id"]
    await spoil(redis, job_id)

    check_unreadable(await submit(client, **key))


async def test_wait_for_a_job_that_was_just_accepted_ends_as_usual(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    posting = asyncio.create_task(submit(client, Prefer="wait=30"))

    async def find_job() -> Any:
        return len(app.state.services.waiting_room) and [key async for key in redis.scan_iter(keys.job("*"))]

    [key] = await eventually(find_job, "the client waits")
    job_id = key.decode().removeprefix(keys.job(""))

    await spoil(redis, job_id)
    await redis.publish(keys.CHANGES, job_id)

    answer = await asyncio.wait_for(posting, 10)
    assert (answer.status_code, answer.json()["job_id"]) == (202, job_id)
    assert "preference-applied" not in answer.headers


async def test_batch_leaves_out_the_job_and_not_the_others(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    body = {"images": [base64_body(image) for image in IMAGES]}
    batch = (await client.post("/analyze-images", json=body)).json()
    path, job_ids = f"/analysis-batches/{batch['batch_id']}", [job["job_id"] for job in batch["jobs"]]

    await spoil(redis, job_ids[1])
    some = await client.get(path)
    await spoil(redis, job_ids[0])
    await spoil(redis, job_ids[2])
    none = await client.get(path)
    await redis.set(keys.batch(batch["batch_id"]), '{"jobs": []}')
    itself = await client.get(path)

    assert [job["job_id"] for job in some.json()["jobs"]] == [job_ids[0], job_ids[2]]
    check_unreadable(none)
    check_unreadable(itself)


async def test_list_leaves_out_the_job_and_not_the_others(make_client: MakeClient, redis: FakeRedis) -> None:
    client = await make_client(api_keys=f"alice:{sha256(b'a').hexdigest()}")
    client.headers["X-API-Key"] = "a"
    job_ids = [(await submit(client, image)).json()["job_id"] for image in IMAGES]
    await spoil(redis, job_ids[1])

    listed = await client.get("/analyses")

    assert {job["job_id"] for job in listed.json()["analyses"]} == {job_ids[0], job_ids[2]}


async def test_models_leave_out_the_one_and_not_the_others(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    now_s, _ = await redis.time()
    await announce(redis)
    await redis.set(keys.announcement("other"), '{"name": "other"}')
    await redis.zadd(keys.MODELS, {BUNDLED_MODEL: now_s, "other": now_s})

    assert [model["id"] for model in (await client.get("/models")).json()["models"]] == [BUNDLED_MODEL]


@pytest.mark.parametrize("what", ["result", "announcement"])
async def test_image_is_analyzed_again_if_its_cached_result_cannot_be_read(
    client: httpx.AsyncClient, redis: FakeRedis, what: str
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGES[0], make_result())
    if what == "result":
        await redis.hset(keys.result(image_digest(IMAGES[0])), MODEL.cache_field, b'{"answer": "\xff"}')
    else:
        await redis.set(keys.announcement(BUNDLED_MODEL), '{"name": "other"}')

    assert (await submit(client)).status_code == 202


async def test_list_of_classifiers_leaves_out_what_it_cannot_read(
    client: httpx.AsyncClient, redis: FakeRedis, redis_server: FakeServer
) -> None:
    for name in ("pets", "plants"):
        store(SyncRedis(server=redis_server), make_classifier(name))
    await redis.hset(keys.classifier("", "pets"), "about", b'{"labels": 2}')

    listed = await client.get("/classifiers")

    assert [found["name"] for found in listed.json()["classifiers"]] == ["plants"]
    check_unreadable(await client.get("/classifiers/pets"))


async def test_classifier_is_read_without_its_examples(
    client: httpx.AsyncClient, redis: FakeRedis, redis_server: FakeServer
) -> None:
    """There are up to 10,000, and reading a classifier costs the caller nothing."""
    store(SyncRedis(server=redis_server), make_classifier())
    await redis.hset(keys.classifier("", "pets"), "examples", b"another form")

    assert (await client.get("/classifiers/pets")).json()["name"] == "pets"
