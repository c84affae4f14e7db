"""The options of a submission: where they can be sent, and their effect on the answer and the queue."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from redis.typing import EncodableT, FieldT

from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.announcements import QUEUE_KEY, announce, cache_result, make_result
from support.replies import read_record
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

IMAGE = make_png(1)
OPTIONS = {"top_k": "2", "min_confidence": "0.2", "priority": "high"}
WAYS: dict[str, dict[str, Any]] = {
    "JSON": {"json": base64_body(IMAGE) | {"top_k": 2.0, "min_confidence": 0.2, "priority": "high"}},
    "JSON and query": {"json": base64_body(IMAGE) | {"top_k": 2}, "params": OPTIONS | {"top_k": "9", "other": "x"}},
    "form": {"files": {"file": ("cat.png", IMAGE, "image/png")}, "data": OPTIONS},
    "form and query": {"files": {"file": IMAGE}, "data": {"top_k": "2"}, "params": OPTIONS | {"top_k": "9"}},
    "image": {"content": IMAGE, "params": OPTIONS, "headers": {"Content-Type": "image/png"}},
    "bytes": {"content": IMAGE, "params": OPTIONS, "headers": {"Content-Type": "Application/Octet-Stream; x=y"}},
}


async def read(redis: FakeRedis, answer: httpx.Response) -> JobRecord:
    return read_record(await redis.hgetall(keys.job(answer.json()["job_id"])))


@pytest.mark.parametrize("way", WAYS)
async def test_image_and_options_mean_the_same_however_they_come(
    client: httpx.AsyncClient, redis: FakeRedis, way: str
) -> None:
    waiting = await client.post("/analyze-image", json=base64_body(make_png(2)))

    answer = await client.post("/analyze-image", **WAYS[way])

    assert answer.status_code == 202, answer.text
    job_ids = [job.json()["job_id"].encode() for job in (answer, waiting)]
    assert await redis.lrange(QUEUE_KEY, 0, -1) == job_ids
    assert await redis.get(keys.image(answer.json()["job_id"])) == IMAGE
    record = await read(redis, answer)
    assert (record.top_k, record.min_confidence) == (2, 0.2)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "top_k of zero": ({"json": base64_body(IMAGE) | {"top_k": 0}}, "top_k must be a whole number from 1 to 100."),
    "top_k over 100": ({"content": IMAGE, "params": {"top_k": "101"}}, "top_k must be a whole number from 1 to 100."),
    "top_k as text in JSON": ({"json": base64_body(IMAGE) | {"top_k": "3"}}, "top_k must be"),
    "top_k as truth": ({"json": base64_body(IMAGE) | {"top_k": True}}, "top_k must be"),
    "half a top_k": ({"files": {"file": IMAGE}, "data": {"top_k": "2.5"}}, "top_k must be"),
    "no number": ({"files": {"file": IMAGE}, "data": {"min_confidence": "nan"}}, "min_confidence must be a number"),
    "over certainty": ({"content": IMAGE, "params": {"min_confidence": "1.1"}}, "min_confidence must be a number"),
    "unknown priority": ({"content": IMAGE, "params": {"priority": "now"}}, "priority must be normal or high."),
    "empty option in JSON": ({"json": base64_body(IMAGE) | {"priority": ""}}, "priority must be normal or high."),
    "twice in the query": ({"content": IMAGE, "params": {"top_k": ["3", "3"]}}, "top_k is given more than once"),
    "twice in the form": ({"files": {"file": IMAGE}, "data": {"top_k": ["3", "4"]}}, "top_k is given more than once"),
    "form without an image": ({"files": {"top_k": (None, "3")}}, "Send exactly one image in the form"),
    "two sources": ({"files": {"file": IMAGE}, "data": {"image_url": "http://x.example/"}}, "Send exactly one image"),
    "two files": ({"files": [("file", IMAGE), ("file", IMAGE)]}, "too many parts named file: send at most 1"),
    "empty image": ({"content": b""}, "The body is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_is_named_and_nothing_is_queued(
    client: httpx.AsyncClient, redis: FakeRedis, mistake: str
) -> None:
    sent, detail = MISTAKES[mistake]
    kind: dict[str, Any] = {"headers": {"Content-Type": "image/png"}} if "content" in sent else {}

    answer = await client.post("/analyze-image", **kind, **sent)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert detail in answer.json()["detail"]
    assert not await redis.exists(QUEUE_KEY)


async def test_null_stands_for_the_default(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    unset = {"top_k": None, "min_confidence": None, "priority": None}

    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | unset, params={"top_k": "7"})

    assert (await read(redis, answer)).top_k == 7


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, ["l0", "l1", "l2", "l3", "l4"]),
        ({"top_k": 2}, ["l0", "l1"]),
        ({"top_k": 5, "min_confidence": 0.25}, ["l0", "l1"]),
        ({"min_confidence": 0.9}, []),
    ],
)
async def test_known_result_is_trimmed_to_what_is_asked_for(
    client: httpx.AsyncClient, redis: FakeRedis, options: dict[str, Any], labels: list[str]
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())

    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | options)

    assert answer.status_code == 200
    assert [prediction["label"] for prediction in answer.json()["result"]["predictions"]] == labels
    assert (answer.json()["result"]["label"], answer.json()["result"]["confidence"]) == ("l0", 0.5)
    assert (await client.get(f"/analysis-status/{answer.json()['job_id']}")).json() == answer.json()


@pytest.mark.parametrize(("known", "top_k", "status", "count"), [(5, 6, 202, 0), (10, 6, 200, 6), (10, 5, 200, 5)])
async def test_deep_result_serves_every_request_and_a_shallow_one_only_its_like(
    client: httpx.AsyncClient, redis: FakeRedis, known: int, top_k: int, status: int, count: int
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result(known))

    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | {"top_k": top_k})

    assert answer.status_code == status
    kept = (await read(redis, answer)).result
    assert len(kept.predictions if kept else []) == count


async def test_each_follower_of_a_run_gets_the_answer_that_it_asked_for(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    asked: list[dict[str, Any]] = [{}, {"top_k": 1}, {"min_confidence": 0.2}]
    jobs = [
        (await client.post("/analyze-image", json=base64_body(IMAGE) | options)).json()["job_id"] for options in asked
    ]
    for job_id in jobs:
        ended: dict[FieldT, EncodableT] = {"status": JobStatus.COMPLETED, "result": make_result().model_dump_json()}
        await redis.hset(keys.job(job_id), mapping=ended)

    results = [(await client.get(f"/analysis-status/{job_id}")).json()["result"] for job_id in jobs]

    assert await redis.llen(QUEUE_KEY) == 1
    assert [len(result["predictions"]) for result in results] == [5, 1, 2]


async def test_image_over_the_limit_is_413_in_every_form(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    image = bytes(10_000_001)
    ways: list[dict[str, Any]] = [
        {"files": {"file": image}},
        {"content": image, "headers": {"Content-Type": "image/png"}},
        {"json": {"image_data": base64.b64encode(image).decode()}},
    ]

    answers = [await client.post("/analyze-image", **way) for way in ways]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(413, "image_too_large")] * 3
    assert not await redis.exists(QUEUE_KEY)


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=b"])
async def test_body_without_length_is_cut_off_at_the_limit_of_its_kind(client: httpx.AsyncClient, kind: str) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        while sent_bytes < 100_000_000:
            sent_bytes += 100_000
            yield bytes(100_000)

    answer = await client.post("/analyze-image", content=endless(), headers={"Content-Type": kind})

    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert sent_bytes < 10_300_000


async def test_documented_examples_work_when_pasted(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    post = document["paths"]["/analyze-image"]["post"]
    content = post["requestBody"]["content"]
    example = content["application/json"]["examples"]["options"]["value"]

    answer = await client.post("/analyze-image", json=example)

    assert answer.status_code == 202
    assert set(content) == {"application/json", "multipart/form-data", "image/*", "application/octet-stream"}
    assert {parameter["name"] for parameter in post["parameters"]} >= {"top_k", "min_confidence", "priority"}
    assert "null" not in json.dumps(post["parameters"])
