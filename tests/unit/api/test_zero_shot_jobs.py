"""Jobs with labels are like all others: cached, shared, cancelled, delivered, and repeated by their key."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_common import keys
from image_analysis_common.job_errors import LabelsNotSupported
from image_analysis_common.models import ZERO_SHOT, JobFailure
from support.announcements import MODEL, QUEUE_KEY, announce
from support.fakes import MakeApp, MakeClient
from support.receivers import SECRET
from support.replies import decoded
from support.samples import base64_body, make_png
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

IMAGE = make_png(1)
LABELS = ["a cat", "a dog"]
PATH = f"/models/{MODEL.id}"
KEY = {"Idempotency-Key": "k1"}


@pytest.fixture
async def zero_shot(redis: FakeRedis) -> None:
    """A worker has announced the default model as a zero-shot model."""
    await announce(redis, task=ZERO_SHOT)


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(webhook_secret=(SECRET,))


async def ask(
    client: httpx.AsyncClient, labels: list[str] = LABELS, *, image: bytes = IMAGE, **options: Any
) -> dict[str, Any]:
    answer = await client.post("/analyze-image", json=base64_body(image) | {"labels": labels} | options)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


async def status(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    return dict((await client.get(f"/analysis-status/{job_id}")).json())


@pytest.mark.usefixtures("zero_shot")
async def test_repeated_question_is_answered_from_the_cache_and_another_one_is_a_job(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    steps.complete((await ask(client))["job_id"])

    again = await ask(client)
    padded = await ask(client, [" a cat", "a dog "])
    others = [
        await ask(client, ["a cat", "a bird"]),
        await ask(client, ["a cat"]),
        await ask(client, hypothesis_template="A sketch of {}."),
        await ask(client, top_k=6),
        await ask(client, image=make_png(2)),
    ]

    assert [(job["status"], job["cached"]) for job in (again, padded)] == [("COMPLETED", True)] * 2
    assert await status(client, again["job_id"]) == again
    assert [job["status"] for job in others] == ["PENDING"] * 5
    assert not any([(await status(client, job["job_id"]))["cached"] for job in others])
    # The first one is still there, because no worker has taken it from RQ's list.
    assert await redis.llen(QUEUE_KEY) == 6


@pytest.mark.usefixtures("zero_shot")
async def test_answer_with_more_predictions_serves_every_request_with_the_same_labels(
    client: httpx.AsyncClient, steps: Steps
) -> None:
    steps.complete((await ask(client, top_k=100))["job_id"])

    assert [(await ask(client, top_k=top_k))["status"] for top_k in (None, 2, 100)] == ["COMPLETED"] * 3


@pytest.mark.usefixtures("zero_shot")
async def test_same_question_in_flight_shares_a_run_and_another_one_has_its_own(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    first, same, other = [await ask(client), await ask(client), await ask(client, ["a bird"])]
    assert await redis.llen(QUEUE_KEY) == 2

    steps.complete(first["job_id"])

    statuses = [(await status(client, job["job_id"]))["status"] for job in (first, same, other)]
    assert statuses == ["COMPLETED", "COMPLETED", "PENDING"]


@pytest.mark.usefixtures("zero_shot")
async def test_batch_with_labels_finds_what_is_cached_and_queues_the_rest(
    client: httpx.AsyncClient, steps: Steps
) -> None:
    steps.complete((await ask(client))["job_id"])
    body = {"images": [base64_body(IMAGE), base64_body(make_png(2)), {"image_data": "?"}], "labels": LABELS}

    answer = await client.post("/analyze-images", json=body)

    assert answer.status_code == 202
    assert [(job["status"], job["cached"]) for job in answer.json()["jobs"]] == [
        ("COMPLETED", True),
        ("PENDING", False),
        ("FAILED", False),
    ]


@pytest.mark.usefixtures("zero_shot")
async def test_urgent_question_goes_to_the_front(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    jobs = [await ask(client), await ask(client, ["a bird"], priority="high")]

    assert await redis.lrange(QUEUE_KEY, 0, -1) == [job["job_id"].encode() for job in reversed(jobs)]


@pytest.mark.usefixtures("zero_shot")
async def test_cancelled_question_ends_alone(client: httpx.AsyncClient, redis: FakeRedis, steps: Steps) -> None:
    mine, other = await ask(client), await ask(client, ["a bird"])

    answer = await client.delete(f"/analysis/{mine['job_id']}")
    steps.complete(other["job_id"])

    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    assert [(await status(client, job["job_id"]))["status"] for job in (mine, other)] == ["CANCELLED", "COMPLETED"]
    assert (await ask(client))["status"] == "PENDING"


@pytest.mark.usefixtures("zero_shot")
async def test_events_of_a_question_come_in_order(client: httpx.AsyncClient, steps: Steps) -> None:
    job_id = (await ask(client))["job_id"]
    steps.begin(job_id)
    steps.complete(job_id)

    text = (await client.get(f"/analysis-status/{job_id}/events")).text

    assert [line.partition('"status":"')[2].partition('"')[0] for line in text.splitlines() if "data:" in line] == [
        "PENDING",
        "PROCESSING",
        "COMPLETED",
    ]


@pytest.mark.usefixtures("zero_shot")
async def test_webhook_is_scheduled_for_an_answer_of_a_worker_and_of_the_cache(
    client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    url = "https://receiver.example/hooks"
    first = await ask(client, webhook_url=url)
    steps.complete(first["job_id"])

    cached = await ask(client, webhook_url=url)

    pending = await redis.zrange(keys.DELIVERIES, 0, -1)
    assert set(pending) == {job["job_id"].encode() for job in (first, cached)}


@pytest.mark.usefixtures("zero_shot")
async def test_key_of_a_request_belongs_to_its_labels(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    async def send(**options: Any) -> httpx.Response:
        return await client.post("/analyze-image", json=base64_body(IMAGE) | options, headers=KEY)

    first, again = [await send(labels=LABELS) for _ in range(2)]
    others = [
        await send(labels=["a dog", "a cat"]),
        await send(labels=[*LABELS, "a bird"]),
        await send(labels=LABELS, hypothesis_template="A sketch of {}."),
        await send(),
    ]

    assert again.json()["job_id"] == first.json()["job_id"]
    assert [(answer.status_code, answer.json()["code"]) for answer in others] == [(422, "idempotency_key_reused")] * 4
    assert await redis.llen(QUEUE_KEY) == 1


async def test_refused_question_frees_its_key(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis)

    refused = await client.post("/analyze-image", json=base64_body(IMAGE) | {"labels": LABELS}, headers=KEY)
    accepted = await client.post("/analyze-image", json=base64_body(IMAGE), headers=KEY)

    assert (refused.status_code, accepted.status_code) == (400, 202)


async def test_question_that_the_worker_refuses_is_a_400_with_the_same_code(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    body = {"inputs": base64.b64encode(IMAGE).decode(), "parameters": {"candidate_labels": LABELS}}
    posting = asyncio.create_task(client.post(PATH, json=body))
    await eventually(lambda: is_waited_for(app), "the job is waited for")
    [job_id] = await redis.lrange(QUEUE_KEY, 0, -1)
    error = LabelsNotSupported(model=MODEL.id)
    steps.fail(decoded(job_id), JobFailure(code=error.code, detail=error.detail))

    answer = await posting

    assert (answer.status_code, answer.json()["code"]) == (400, "labels_not_supported")
    assert answer.json()["detail"] == error.detail


async def is_waited_for(app: FastAPI) -> bool:
    return len(app.state.services.waiting_room) == 1


@pytest.mark.usefixtures("zero_shot")
@pytest.mark.parametrize(
    ("labels", "top_k"), [(LABELS, 2), ([f"thing {n}" for n in range(7)], 7), ([f"thing {n}" for n in range(200)], 100)]
)
@pytest.mark.parametrize("way", ["JSON", "query"])
async def test_candidate_labels_of_hugging_face_are_a_question_for_all_of_them(
    client: httpx.AsyncClient, redis: FakeRedis, labels: list[str], top_k: int, way: str
) -> None:
    asked = {"candidate_labels": labels, "hypothesis_template": "A sketch of {}."}
    sent: dict[str, Any] = {"content": IMAGE, "params": asked}
    if way == "JSON":
        sent = {"json": {"inputs": base64.b64encode(IMAGE).decode(), "parameters": asked}}

    answer = await client.post(PATH, headers={"Prefer": "wait=0"}, **sent)

    assert (answer.status_code, answer.json()["code"]) == (503, "result_pending")
    [key] = [key async for key in redis.scan_iter("analysis_job:*")]
    record = await redis.hgetall(key)
    assert record[b"top_k"] == f"{top_k}".encode()
    same = await ask(client, labels, hypothesis_template="A sketch of {}.", top_k=top_k)
    assert same["status"] == "PENDING"
    assert await redis.llen(QUEUE_KEY) == 1


@pytest.mark.usefixtures("zero_shot")
@pytest.mark.parametrize(
    ("parameters", "code", "sentence"),
    [
        ({}, "labels_required", "has no labels of its own"),
        ({"candidate_labels": []}, "invalid_request", "parameters.candidate_labels must be 1 to 200 different texts"),
        ({"candidate_labels": ["a", "a"]}, "invalid_request", "parameters.candidate_labels must be 1 to 200"),
        (
            {"candidate_labels": ["a"], "hypothesis_template": "{0}"},
            "invalid_request",
            "parameters.hypothesis_template must be a text",
        ),
        ({"hypothesis_template": "{}"}, "invalid_request", "hypothesis_template needs candidate_labels"),
    ],
)
async def test_mistake_in_a_call_of_hugging_face_is_named(
    client: httpx.AsyncClient, parameters: dict[str, Any], code: str, sentence: str
) -> None:
    body = {"inputs": base64.b64encode(IMAGE).decode(), "parameters": parameters}

    answer = await client.post(PATH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert sentence in answer.json()["detail"]
    assert sentence in answer.headers["x-error-message"]


@pytest.mark.usefixtures("zero_shot")
async def test_question_counts_against_the_rate_limit_whatever_becomes_of_it(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=2)

    codes = [
        (await client.post("/analyze-image", json=base64_body(IMAGE) | options)).status_code
        for options in ({"labels": LABELS}, {}, {"labels": LABELS})
    ]

    assert codes == [202, 400, 429]
