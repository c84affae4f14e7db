"""The option `embedding`: where it can be sent, what its answer holds, and what the cache keeps of it."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_api.intake.schemas import Options
from image_analysis_api.intake.submissions import Submission
from image_analysis_common import keys
from image_analysis_common.models import MAX_DIMENSION, ZERO_SHOT, AnalysisResult, ImageEmbedding
from support.announcements import MODEL, QUEUE_KEY, announce
from support.fakes import MakeApp
from support.receivers import SECRET
from support.replies import read_record
from support.samples import base64_body, make_png
from support.steps import RESULT, Steps

pytestmark = pytest.mark.anyio

IMAGE = make_png(1)
PNG = {"Content-Type": "image/png"}
FILE = {"file": ("cat.png", IMAGE, "image/png")}
VECTOR = ImageEmbedding.pack(np.array([0.6, -0.8], "<f4").tobytes())
WITH_VECTOR = RESULT.model_copy(update={"embedding": VECTOR})
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "JSON": ({"json": base64_body(IMAGE) | {"embedding": True}}, True),
    "JSON, false": ({"json": base64_body(IMAGE) | {"embedding": False}, "params": {"embedding": "true"}}, False),
    "JSON, null": ({"json": base64_body(IMAGE) | {"embedding": None}}, False),
    "JSON and query": ({"json": base64_body(IMAGE), "params": {"embedding": "true"}}, True),
    "form": ({"files": FILE, "data": {"embedding": "true"}}, True),
    "form, empty": ({"files": FILE, "data": {"embedding": ""}}, False),
    "form, false": ({"files": FILE, "data": {"embedding": "false"}}, False),
    "query": ({"content": IMAGE, "params": {"embedding": "true"}, "headers": PNG}, True),
    "nothing": ({"content": IMAGE, "headers": PNG}, False),
}


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(webhook_secret=(SECRET,))


async def ask(client: httpx.AsyncClient, *, embedding: bool = True, **options: Any) -> dict[str, Any]:
    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | {"embedding": embedding} | options)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


async def status(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    return dict((await client.get(f"/analysis-status/{job_id}")).json())


@pytest.mark.parametrize("way", WAYS)
async def test_option_means_the_same_however_it_comes(client: httpx.AsyncClient, redis: FakeRedis, way: str) -> None:
    request, expected = WAYS[way]

    answer = await client.post("/analyze-image", **request)

    assert answer.status_code == 202, answer.text
    assert read_record(await redis.hgetall(keys.job(answer.json()["job_id"]))).embedding is expected


async def test_option_goes_with_every_image_of_a_batch(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    images = [base64_body(make_png(number)) for number in range(2)]
    ways: list[dict[str, Any]] = [
        {"json": {"images": images, "embedding": True}},
        {"files": [("file", make_png(number)) for number in range(2)], "data": {"embedding": "true"}},
    ]

    for way in ways:
        jobs = (await client.post("/analyze-images", **way)).json()["jobs"]

        assert len(jobs) == 2
        for job in jobs:
            assert read_record(await redis.hgetall(keys.job(job["job_id"]))).embedding


@pytest.mark.parametrize("value", ["maybe", 1, "true", []])
async def test_anything_but_true_or_false_is_refused_in_json(client: httpx.AsyncClient, value: object) -> None:
    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | {"embedding": value})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"] == "embedding must be true or false."


async def test_other_text_is_refused_in_a_form(client: httpx.AsyncClient) -> None:
    answer = await client.post("/analyze-image", files=FILE, data={"embedding": "maybe"})

    assert (answer.status_code, answer.json()["detail"]) == (400, "embedding must be true or false.")


async def test_answer_with_an_embedding_is_cached_for_requests_that_ask_for_it(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    plain = await ask(client, embedding=False)
    steps.complete(plain["job_id"])

    first = await ask(client)
    steps.complete(first["job_id"], WITH_VECTOR)
    again, without = await ask(client), await ask(client, embedding=False)

    assert first["status"] == "PENDING"
    assert (await status(client, first["job_id"]))["result"]["embedding"] == VECTOR.model_dump()
    assert (again["status"], again["cached"]) == ("COMPLETED", True)
    assert again["result"]["embedding"] == {"dimension": 2, "values": "mpkZP83MTL8="}
    assert await status(client, again["job_id"]) == again
    assert (without["status"], without["cached"]) == ("COMPLETED", True)
    assert "embedding" not in without["result"]


async def test_answer_in_the_cache_without_an_embedding_is_found_again_and_again(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    """The process remembers results: one with an embedding must not take the place of one without."""
    await announce(redis)
    steps.complete((await ask(client))["job_id"], WITH_VECTOR)
    steps.complete((await ask(client, embedding=False))["job_id"])

    answers = [await ask(client, embedding=asks) for asks in (True, True, False, False, True)]

    assert ["embedding" in answer["result"] for answer in answers] == [True, True, False, False, True]


async def test_options_of_an_answer_leave_its_embedding(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    steps.complete((await ask(client, top_k=100))["job_id"], WITH_VECTOR)

    answer = await ask(client, top_k=1, min_confidence=0.95)

    assert answer["result"]["predictions"] == []
    assert answer["result"]["embedding"] == VECTOR.model_dump()


async def test_identical_requests_in_flight_share_a_run_and_one_without_has_its_own(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    first, same, plain = await ask(client), await ask(client), await ask(client, embedding=False)
    assert await redis.llen(QUEUE_KEY) == 2

    steps.complete(first["job_id"], WITH_VECTOR)

    found = [await status(client, job["job_id"]) for job in (first, same)]
    assert [job["result"]["embedding"] for job in found] == [VECTOR.model_dump()] * 2
    assert (await status(client, plain["job_id"]))["status"] == "PENDING"


async def test_batch_events_and_webhook_hold_the_embedding(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    body = {"images": [base64_body(IMAGE)], "embedding": True, "webhook_url": "https://receiver.example/hooks"}
    batch = (await client.post("/analyze-images", json=body)).json()
    [job_id] = [job["job_id"] for job in batch["jobs"]]
    steps.complete(job_id, WITH_VECTOR)

    found = (await client.get(f"/analysis-batches/{batch['batch_id']}")).json()["jobs"][0]["result"]
    events = (await client.get(f"/analysis-status/{job_id}/events")).text
    last = [line for line in events.splitlines() if line.startswith("data:")][-1]

    assert found["embedding"] == VECTOR.model_dump()
    assert json.loads(last.removeprefix("data:"))["result"] == found
    delivered = read_record(await redis.hgetall(keys.delivery(job_id)))
    assert delivered.answer == WITH_VECTOR


@pytest.mark.parametrize(("task", "options"), [("image-classification", {}), (ZERO_SHOT, {"labels": ["a cat"]})])
async def test_model_without_embeddings_refuses_the_option_and_says_what_to_do(
    client: httpx.AsyncClient, redis: FakeRedis, task: Any, options: dict[str, Any]
) -> None:
    await announce(redis, task=task, embeds=False)
    asked = {"embedding": True} | options
    batch = {"images": [base64_body(IMAGE), base64_body(make_png(2))]} | asked

    answers = [await client.post("/analyze-image", json=base64_body(IMAGE) | asked) for _ in range(2)]
    answers.append(await client.post("/analyze-images", json=batch))

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (400, "embeddings_not_supported")
        assert answer.json()["detail"].startswith(f"{MODEL.id} gives no embeddings: leave out `embedding`")
    assert not await redis.exists(QUEUE_KEY)
    assert (await ask(client, embedding=False, **options))["status"] == "PENDING"


async def test_new_worker_that_gives_embeddings_ends_the_refusals(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis, embeds=False)
    refused = await client.post("/analyze-image", json=base64_body(IMAGE) | {"embedding": True})

    await announce(redis)

    assert refused.status_code == 400
    assert (await ask(client))["status"] == "PENDING"


async def test_key_of_a_request_belongs_to_its_option(client: httpx.AsyncClient) -> None:
    async def send(**options: Any) -> int:
        body = base64_body(IMAGE) | options
        return (await client.post("/analyze-image", json=body, headers={"Idempotency-Key": "k1"})).status_code

    assert [await send(**options) for options in ({"embedding": True}, {"embedding": True}, {})] == [202, 202, 422]


async def test_request_with_false_has_the_fingerprint_of_one_without() -> None:
    plain, false = (Submission(Options(embedding=value), image=IMAGE) for value in (None, False))

    assert await plain.fingerprint() == await false.fingerprint()


def test_longest_embedding_has_the_documented_size() -> None:
    longest = ImageEmbedding.pack(np.full(MAX_DIMENSION, -1 / MAX_DIMENSION**0.5, "<f4").tobytes())

    assert (longest.dimension, len(longest.values)) == (8192, 43_692)


def test_vector_is_an_array_of_the_numbers() -> None:
    vector = AnalysisResult.model_validate_json(WITH_VECTOR.model_dump_json()).embedding

    assert vector is not None
    assert vector.vector.tolist() == pytest.approx([0.6, -0.8])
    assert np.asarray(vector.vector).dtype == np.float32
