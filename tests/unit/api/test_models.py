"""The models that workers announce: listed, found, and chosen by their ID."""

import json

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_common import keys
from image_analysis_common.models import ModelRef
from support.announcements import MODEL, cache_result, make_result, serve
from support.fakes import MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

PETS = ModelRef(id="acme/pets", revision="r7", preprocessing="1")
IMAGE = make_png(1)
NO_WORKER = "No worker serves its model now: the job waits for one."


async def test_every_known_model_is_listed_with_its_workers_and_its_queue(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await serve(redis, MODEL, workers=2)
    await serve(redis, PETS, silent_s=11)
    await serve(redis, PETS.model_copy(update={"id": "gone"}), silent_s=keys.ANNOUNCEMENT_TTL_S)
    await client.post("/analyze-image", json=base64_body(IMAGE) | {"model": "acme/pets"})

    models = (await client.get("/models")).json()["models"]

    assert [(model["id"], model["is_default"], model["workers"], model["queue_depth"]) for model in models] == [
        ("acme/pets", False, 0, 1),
        (MODEL.id, True, 2, 0),
    ]
    assert all("labels" not in model for model in models)


@pytest.mark.parametrize("path", ["/models/acme/pets", "/models/acme%2Fpets"])
async def test_model_with_a_slash_is_found_with_its_labels(
    client: httpx.AsyncClient, redis: FakeRedis, path: str
) -> None:
    await serve(redis, PETS)

    answer = await client.get(path)

    assert answer.json() == {
        "id": "acme/pets",
        "is_default": False,
        "revision": "r7",
        "task": "image-classification",
        "labels_count": 1,
        "labels": ["cat"],
        "engines": [],
        "accuracy": None,
        "backend": "torch",
        "device": "cpu",
        "precision": "float32",
        "max_batch_size": 1,
        "inference_ms": 1,
        "function_to_apply": "softmax",
        "embeds": True,
        "trains": True,
        "workers": 1,
        "queue_depth": 0,
    }


@pytest.mark.parametrize("announced", ["{}", '{"model": 7}'])
async def test_announcement_of_another_release_hides_its_model_alone(
    client: httpx.AsyncClient, redis: FakeRedis, announced: str
) -> None:
    await serve(redis, MODEL)
    await serve(redis, PETS)
    await redis.set(keys.announcement(PETS.id), announced)

    assert [model["id"] for model in (await client.get("/models")).json()["models"]] == [MODEL.id]
    assert (await client.get("/models/acme/pets")).status_code == 404


async def test_chosen_model_gets_the_job_and_the_answer_says_if_it_has_no_worker(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await serve(redis, PETS, silent_s=11)
    served_body = base64_body(make_png(2)) | {"model": MODEL.id}

    waiting = await client.post("/analyze-image", json=base64_body(IMAGE), params={"model": "acme/pets"})
    await serve(redis, MODEL)
    served = await client.post("/analyze-image", json=served_body)

    assert (waiting.status_code, served.status_code) == (202, 202)
    assert waiting.json()["message"].endswith(NO_WORKER)
    assert served.json()["message"].endswith("for the result.")
    for answer, queue in ((waiting, "acme--pets"), (served, MODEL.id)):
        assert await redis.lrange(f"rq:queue:analysis-{queue}", 0, -1) == [answer.json()["job_id"].encode()]
    assert await redis.hget(keys.job(waiting.json()["job_id"]), "model") == b"acme/pets"


async def test_unknown_model_is_404_that_names_the_known_ones(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await serve(redis, PETS)

    answers = [
        await client.post("/analyze-image", json=base64_body(IMAGE) | {"model": "acme/birds"}),
        await client.get("/models/acme/birds"),
    ]

    details = [(answer.status_code, answer.json()["code"], answer.json()["detail"]) for answer in answers]
    assert details == [
        (404, "model_not_found", f"There is no such model. Known models: acme/pets, {MODEL.id}."),
        (404, "model_not_found", "There is no such model. Known models: acme/pets."),
    ]
    assert not [key async for key in redis.scan_iter("analysis_job:*")]


async def test_default_model_can_be_named_before_its_first_worker(client: httpx.AsyncClient) -> None:
    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | {"model": MODEL.id})

    assert answer.status_code == 202


async def test_answers_say_that_the_default_model_has_had_no_worker_yet(client: httpx.AsyncClient) -> None:
    body = base64_body(IMAGE)

    answers = [
        await client.post("/analyze-image", json=body),
        await client.post("/analyze-image", json=body | {"model": MODEL.id}),
        await client.post("/analyze-images", json={"images": [body]}),
        await client.post(f"/models/{MODEL.id}", content=IMAGE, headers={"Prefer": "wait=0"}),
    ]

    sentences = [answer.json().get("message") or answer.json()["detail"] for answer in answers]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 503]
    assert [sentence.endswith(NO_WORKER) for sentence in sentences] == [True] * 4


async def test_result_of_one_model_is_not_anothers(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await serve(redis, MODEL)
    await serve(redis, PETS)
    await cache_result(redis, IMAGE, make_result(model=PETS))

    answers = [
        await client.post("/analyze-image", json=base64_body(IMAGE) | options) for options in ({"model": PETS.id}, {})
    ]

    assert [answer.status_code for answer in answers] == [200, 202]
    assert answers[0].json()["result"]["model"]["id"] == PETS.id


async def test_models_need_a_key_and_are_not_listed_in_an_outage(
    make_client: MakeClient, redis_server: FakeServer
) -> None:
    guarded = await make_client(api_keys=f"alice:{'0' * 64}")
    client = await make_client()

    refused = [await guarded.get("/models"), await guarded.get("/models/x")]
    redis_server.connected = False
    failed = [await client.get("/models"), await client.get("/models/x")]

    assert [answer.status_code for answer in (*refused, *failed)] == [401, 401, 503, 503]
    assert "security" in json.dumps((await guarded.get("/openapi.json")).json()["paths"]["/models"])
