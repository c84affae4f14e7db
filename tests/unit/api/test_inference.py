"""The call of Hugging Face's inference clients: POST /models/{model_id}."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_api.intake.schemas import FIELD_RULES, FIELDS, InferenceParameters
from image_analysis_common import keys, tasks
from image_analysis_common.job_errors import CorruptImage, ImageExpired, JobError, JobTimeout, WorkerLost
from image_analysis_common.models import JobFailure, ModelRef
from image_analysis_common.settings import BUNDLED_MODEL
from support.announcements import announce, cache_result, make_result
from support.fakes import MakeApp, MakeClient
from support.samples import make_png
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

VIT = ModelRef(id="google/vit-base-patch16-224", revision="r1", preprocessing="1")
PATH = f"/models/{BUNDLED_MODEL}"
IMAGE = make_png(1)
NO_WAIT = {"Prefer": "wait=0"}


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(max_waiters=2)


def inference(image: bytes, **parameters: Any) -> dict[str, Any]:
    return {"inputs": base64.b64encode(image).decode(), "parameters": parameters}


async def waited_for_job(app: FastAPI, redis: FakeRedis, model: str = BUNDLED_MODEL, waiters: int = 1) -> str:
    """Name the job that so many clients wait for, once that is so."""

    async def find() -> Any:
        is_waited_for = len(app.state.services.waiting_room) == waiters
        return is_waited_for and await redis.lindex(f"rq:queue:{tasks.queue_name(model)}", 0)

    return bytes(await eventually(find, "a job is queued and waited for")).decode()


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "content_type",
    [None, "image/png", "IMAGE/JPEG; q=1", "application/octet-stream", "binary/octet-stream", "text/html"],
)
async def test_body_is_the_image_whatever_type_it_has(
    client: httpx.AsyncClient, redis: FakeRedis, content_type: str | None
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())
    headers = {"Content-Type": content_type} if content_type else {}

    answer = await client.post(PATH, content=IMAGE, headers=headers)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == [{"label": f"l{n}", "score": 0.5 ** (n + 1)} for n in range(5)]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_json_holds_the_image_and_the_parameters(
    client: httpx.AsyncClient, redis: FakeRedis, prefix: str
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())
    body = inference(IMAGE, top_k=2, function_to_apply="softmax")
    body["inputs"] = prefix + body["inputs"]

    answer = await client.post(f"{PATH}?top_k=4", json=body)
    bare = await client.post(f"{PATH}?top_k=4", json={"inputs": body["inputs"], "parameters": None})

    assert answer.json() == [{"label": "l0", "score": 0.5}, {"label": "l1", "score": 0.25}]
    assert len(bare.json()) == 4


async def test_answer_comes_when_the_job_of_the_model_ends(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, redis_server: FakeServer, steps: Steps
) -> None:
    await announce(redis, VIT)
    await redis.zadd(keys.MODELS, {VIT.id: (await redis.time())[0]})
    posting = asyncio.create_task(client.post(f"/models/{VIT.id}", content=IMAGE))
    job_id = await waited_for_job(app, redis, VIT.id)
    assert await redis.hget(keys.job(job_id), "model") == VIT.id.encode()
    steps.begin(job_id)
    steps.complete(job_id)

    answer = await posting

    assert (answer.status_code, answer.json()) == (200, [{"label": "cat", "score": 0.9}])


@pytest.mark.parametrize(
    ("failure", "status"),
    [(CorruptImage(), 400), (JobTimeout(limit_s=60), 400), (WorkerLost(attempts=3), 400), (ImageExpired(), 500)],
)
async def test_failed_job_is_a_problem_with_its_code_and_sentence(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps, failure: JobError, status: int
) -> None:
    posting = asyncio.create_task(client.post(PATH, content=IMAGE))
    steps.fail(await waited_for_job(app, redis), JobFailure(code=failure.code, detail=failure.detail))

    answer = await posting

    assert problem(answer) == (status, failure.code)
    assert (answer.json()["detail"], answer.headers["x-error-message"]) == (failure.detail, failure.detail)
    assert "retry-after" not in answer.headers


async def test_failure_with_a_code_of_another_release_is_an_internal_error(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    posting = asyncio.create_task(client.post(PATH, content=IMAGE))
    steps.fail(await waited_for_job(app, redis), JobFailure(code="too_green", detail="It is too green."))

    answer = await posting

    assert problem(answer) == (500, "internal_error")
    assert answer.json()["detail"] == "It is too green."


async def test_cancelled_job_is_409(app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis) -> None:
    posting = asyncio.create_task(client.post(PATH, content=IMAGE))
    job_id = await waited_for_job(app, redis)
    await client.delete(f"/analysis/{job_id}")

    assert problem(await posting) == (409, "job_cancelled")


async def test_job_that_outlasts_the_wait_is_503_and_goes_on_for_the_next_request(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    late = await client.post(PATH, content=IMAGE, headers=NO_WAIT)
    again = asyncio.create_task(client.post(PATH, json=inference(IMAGE)))
    job_id = await waited_for_job(app, redis)
    steps.complete(job_id)

    assert problem(late) == (503, "result_pending")
    assert late.headers["retry-after"] == "1"
    assert late.json()["detail"].endswith("No worker serves its model now: the job waits for one.")
    assert (await again).json() == [{"label": "cat", "score": 0.9}]
    assert (await client.post(PATH, content=IMAGE, headers=NO_WAIT)).status_code == 200


async def test_stopping_process_answers_503(app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis) -> None:
    posting = asyncio.create_task(client.post(PATH, content=IMAGE))
    await waited_for_job(app, redis)

    app.state.services.waiting_room.dismiss()

    assert problem(await posting) == (503, "result_pending")


async def test_client_without_a_place_to_wait_gets_503_and_its_result_later(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    waiting = [asyncio.create_task(client.post(PATH, content=IMAGE)) for _ in range(2)]
    job_id = await waited_for_job(app, redis, waiters=2)

    refused = await client.post(PATH, content=IMAGE)
    steps.complete(job_id)

    assert problem(refused) == (503, "too_many_waiters")
    assert refused.headers["retry-after"] == "5"
    assert [(await answer).status_code for answer in waiting] == [200, 200]
    assert (await client.post(PATH, content=IMAGE)).status_code == 200


async def test_full_queue_is_503(make_client: MakeClient) -> None:
    client = await make_client(max_queue_depth=1)
    await client.post("/analyze-image", content=make_png(2), headers={"Content-Type": "image/png"})

    answer = await client.post(PATH, content=IMAGE)

    assert problem(answer) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1


async def test_requests_count_for_the_owner_of_the_key(make_client: MakeClient, redis: FakeRedis) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())
    client = await make_client(api_keys=f"alice:{sha256(b'a').hexdigest()}", rate_limit_max_requests=1)

    strange = await client.post(PATH, content=IMAGE)
    answers = [await client.post(PATH, content=IMAGE, headers={"Authorization": "Bearer a"}) for _ in range(2)]

    assert problem(strange) == (401, "unauthorized")
    assert strange.headers["x-error-message"] == strange.json()["detail"]
    assert answers[0].status_code == 200
    assert problem(answers[1]) == (429, "rate_limited")


async def test_idempotency_key_leads_to_the_same_job(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    headers = {"Idempotency-Key": "k1"}
    late = await client.post(PATH, content=IMAGE, headers=headers | NO_WAIT)
    steps.fail(await waited_for_job(app, redis, waiters=0))

    again = await client.post(f"{PATH}?function_to_apply=softmax", content=IMAGE, headers=headers)
    other = await client.post(PATH, content=make_png(2), headers=headers)

    assert problem(late) == (503, "result_pending")
    assert problem(again) == (400, "corrupt_image")
    assert problem(other) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("path", ["/models/acme/birds", "/models/acme%2Fbirds", f"/models/{'b' * 300}", "/models/"])
async def test_unknown_model_is_404_that_names_the_known_ones(
    client: httpx.AsyncClient, redis: FakeRedis, path: str
) -> None:
    await announce(redis)
    await redis.zadd(keys.MODELS, {BUNDLED_MODEL: (await redis.time())[0]})

    for parameters in ({}, {"function_to_apply": "softmax"}):
        answer = await client.post(path, json=inference(IMAGE, **parameters))

        assert problem(answer) == (404, "model_not_found")
        assert answer.json()["detail"] == f"There is no such model. Known models: {BUNDLED_MODEL}."
    assert not [key async for key in redis.scan_iter("analysis_job:*")]


@pytest.mark.parametrize("function", ["sigmoid", "none"])
async def test_function_that_the_model_does_not_apply_is_400(
    client: httpx.AsyncClient, redis: FakeRedis, function: str
) -> None:
    await announce(redis)

    answer = await client.post(f"{PATH}?function_to_apply={function}", content=IMAGE)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["detail"] == "This model applies softmax: send it as function_to_apply, or leave that out."


async def test_function_of_a_model_whose_worker_has_not_named_one_is_400(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, json=inference(IMAGE, function_to_apply="softmax"))

    assert problem(answer) == (400, "invalid_request")
    assert "leave function_to_apply out" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "inputs must be the image's bytes in base64."),
        ({"inputs": 7}, "inputs must be the image's bytes in base64."),
        ({"inputs": "", "options": {}}, "The body has an unknown field, options: its fields are inputs, parameters."),
        (
            {"inputs": "", "parameters": {"threshold": 1}},
            "parameters has an unknown field, threshold: its fields are "
            + ", ".join(FIELDS[InferenceParameters])
            + ".",
        ),
        ({"inputs": "", "parameters": []}, f"parameters must be {FIELD_RULES['parameters']}."),
        ({"inputs": "", "parameters": {"top_k": 0}}, "parameters.top_k must be a whole number from 1 to 100."),
        (
            {"inputs": "", "parameters": {"function_to_apply": "relu"}},
            "parameters.function_to_apply must be softmax, sigmoid or none.",
        ),
        ([], "The body must be a JSON object with inputs (base64) and parameters."),
    ],
)
async def test_malformed_json_is_400_that_says_what_is_wrong(
    client: httpx.AsyncClient, body: object, sentence: str
) -> None:
    answer = await client.post(PATH, json=body)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["detail"] == sentence


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b"", "image/png", (400, "invalid_request")),
        (b"", "application/json", (400, "invalid_request")),
        (b"none", "", (400, "unsupported_image")),
        (b"{", "application/json", (400, "invalid_request")),
        (json.dumps({"inputs": "?"}).encode(), "application/json; charset=utf-8", (400, "invalid_base64")),
        (b"x" * 2001, "image/png", (413, "image_too_large")),
        (json.dumps(inference(b"x" * 2001)).encode(), "application/json", (413, "image_too_large")),
        (b"--b--", "multipart/form-data; boundary=b", (415, "unsupported_media_type")),
    ],
)
async def test_what_is_no_image_is_refused(
    make_client: MakeClient, content: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    client = await make_client(max_image_bytes=2000)

    answer = await client.post(PATH, content=content, headers={"Content-Type": content_type})

    assert problem(answer) == expected
    assert "image_data" not in answer.json()["detail"]


async def test_sentence_with_any_character_fits_into_a_header(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await redis.zadd(keys.MODELS, {"ä\n€" * 1000: (await redis.time())[0]})

    answer = await client.post("/models/acme/birds", content=IMAGE)

    assert problem(answer) == (404, "model_not_found")
    sentence = f"There is no such model. Known models: {BUNDLED_MODEL}, " + "???" * 1000
    assert answer.headers["x-error-message"] == sentence[:1000]


async def test_page_in_firefox_may_call_it(make_client: MakeClient) -> None:
    client = await make_client(cors_allow_origins="https://app.example")
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}

    answer = await client.options(PATH, headers=asked | {"Access-Control-Request-Headers": "authorization,user-agent"})

    assert answer.status_code == 200


async def test_other_method_is_405_that_allows_both_calls_of_the_path(client: httpx.AsyncClient) -> None:
    answer = await client.put("/models/google/vit-base-patch16-224")

    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("model", ["%2E%2E", "..%2F..%2Fetc%2Fpasswd", "a%00b", "%ff", "%E2%82%AC"])
async def test_hostile_model_id_is_404_that_repeats_nothing_of_it(client: httpx.AsyncClient, model: str) -> None:
    url = httpx.URL("http://api", raw_path=f"/models/{model}".encode())

    answer = await client.post(url, content=IMAGE)

    assert problem(answer) == (404, "model_not_found")
    assert answer.json()["detail"] == f"There is no such model. Known models: {BUNDLED_MODEL}."


async def test_image_that_another_call_submitted_is_not_analyzed_again(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    await announce(redis)
    await client.post("/analyze-image", content=IMAGE, headers={"Content-Type": "image/png"})
    posting = asyncio.create_task(client.post(PATH, content=IMAGE))
    job_id = await waited_for_job(app, redis)
    assert await redis.llen(f"rq:queue:{tasks.queue_name(BUNDLED_MODEL)}") == 1
    steps.complete(job_id)

    assert (await posting).json() == [{"label": "cat", "score": 0.9}]


async def test_body_that_does_not_arrive_is_408(make_client: MakeClient) -> None:
    client = await make_client(body_timeout_seconds=0.05)

    async def drip() -> AsyncIterator[bytes]:
        yield IMAGE[:10]
        await asyncio.sleep(60)

    assert problem(await client.post(PATH, content=drip())) == (408, "request_timeout")
