"""Classifiers over HTTP: who may see them, what a training needs, and what it queues. No worker runs here."""

import base64
import json
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fakeredis import FakeRedis as SyncRedis
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_api.responses import AnalysisStatus
from image_analysis_common import keys, tasks
from image_analysis_common.classifiers import ClassifierRef, Training, TrainingPlan
from image_analysis_common.images import image_digest
from image_analysis_common.models import ZERO_SHOT, ImageEmbedding, JobStatus, Question
from image_analysis_common.records import JobRecord
from support.announcements import MODEL, announce
from support.classifiers import make_classifier, make_vectors, store
from support.fakes import FakeFetcher, MakeApp, MakeClient
from support.receivers import SECRET
from support.replies import decoded, raw, read_record
from support.samples import base64_body, make_png
from support.steps import RESULT, Steps

pytestmark = pytest.mark.anyio

CATS, DOGS = ([make_png(seed) for seed in range(start, start + 5)] for start in (100, 200))
KEYS = {name: f"{name}-key" for name in ("ann", "bob")}
ANN, BOB = ({"X-API-Key": key} for key in KEYS.values())


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    entries = ",".join(f"{name}:{sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
    return make_app(api_keys=entries, max_classifiers=2)


@pytest.fixture
def sync(redis_server: FakeServer) -> SyncRedis:
    return SyncRedis(server=redis_server)


@pytest.fixture(autouse=True)
async def announced(redis: FakeRedis) -> None:
    await announce(redis)


def of(label: str, image: bytes) -> dict[str, str]:
    return {"label": label, "image": base64.b64encode(image).decode()}


EXAMPLES = [of("cat", image) for image in CATS] + [of("dog", image) for image in DOGS]


async def put(client: httpx.AsyncClient, examples: list[Any] = EXAMPLES, path: str = "pets", **more: Any) -> Any:
    headers = ANN | more.pop("headers", {})
    return await client.put(f"/classifiers/{path}", json={"examples": examples} | more, headers=headers)


async def read_plan(redis: FakeRedis, answer: httpx.Response) -> tuple[JobRecord, TrainingPlan]:
    job_id = answer.json()["job_id"]
    plan = TrainingPlan.model_validate_json(raw(await redis.get(keys.image(job_id))))
    return read_record(await redis.hgetall(keys.job(job_id))), plan


async def test_training_is_queued_behind_the_jobs_of_its_images(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    answer = await put(client)

    job_id = answer.json()["job_id"]
    assert (answer.status_code, answer.json()) == (202, {"job_id": job_id, "status": "PENDING", "classifier": "pets"})
    assert answer.headers["Location"] == f"/analysis-status/{job_id}"
    record, plan = await read_plan(redis, answer)
    assert record.training == Training(name="pets")
    assert [example.image_hash for example in plan.examples] == [image_digest(image) for image in CATS + DOGS]
    queue = [decoded(job) for job in await redis.lrange(f"rq:queue:{tasks.queue_name(MODEL.id)}", 0, -1)]
    assert queue == [*(example.job_id for example in plan.examples), job_id]
    images = [read_record(await redis.hgetall(keys.job(job))) for job in queue[:-1]]
    assert all(image.embedding and image.owner == "ann" for image in images)


async def test_form_names_each_file_by_its_label(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    files = [("black cat", ("1.png", image)) for image in CATS] + [('a "dog"', ("2.png", image)) for image in DOGS]

    answer = await client.put("/classifiers/pets?model=vit-tiny-cifar10", files=files, headers=ANN)

    record, plan = await read_plan(redis, answer)
    assert record.model == "vit-tiny-cifar10"
    assert [example.label for example in plan.examples] == ["black cat"] * 5 + ['a "dog"'] * 5


async def test_images_of_a_zero_shot_model_are_asked_with_one_label(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await announce(redis, task=ZERO_SHOT)

    _, plan = await read_plan(redis, await put(client))

    record = read_record(await redis.hgetall(keys.job(plan.examples[0].job_id or "")))
    assert record.question == Question(labels=("image",))


async def test_examples_are_named_by_hash_and_by_job(client: httpx.AsyncClient, redis: FakeRedis, steps: Steps) -> None:
    vectors = make_vectors(["cat"] * 10)
    for image, vector in zip(CATS, vectors, strict=False):
        await redis.hset(keys.embedding(image_digest(image)), MODEL.cache_field, vector.tobytes())
    jobs = []
    for image, vector in zip(DOGS[:4], vectors[5:], strict=False):
        jobs.append((await client.post("/analyze-image", json=base64_body(image), headers=ANN)).json()["job_id"])
        steps.complete(jobs[-1], RESULT.model_copy(update={"embedding": ImageEmbedding.pack(vector.tobytes())}))
    waiting = (await client.post("/analyze-image", json=base64_body(DOGS[4]), headers=ANN)).json()["job_id"]

    named = [{"label": "cat", "image_hash": image_digest(image).upper()} for image in CATS]
    answer = await put(client, named + [{"label": "dog", "job_id": job} for job in [*jobs, waiting]])

    _, plan = await read_plan(redis, answer)
    assert plan.model == MODEL
    found = [base64.b64decode(example.embedding) for example in plan.examples if example.embedding]
    assert found == [vector.tobytes() for vector in vectors[:9]]
    assert [example.job_id for example in plan.examples] == [None] * 9 + [waiting]
    assert [example.image_hash for example in plan.examples[5:]] == [image_digest(image) for image in DOGS]


@pytest.mark.parametrize(
    "example",
    [{"image_hash": "a" * 64}, {"job_id": str(uuid4())}, {"job_id": "bob's"}],
    ids=["hash", "job", "job of another owner"],
)
async def test_unknown_image_is_named(client: httpx.AsyncClient, example: dict[str, str]) -> None:
    if example.get("job_id") == "bob's":
        sent = await client.post("/analyze-image", json=base64_body(CATS[0]), headers=BOB)
        example = {"job_id": sent.json()["job_id"]}

    answer = await put(client, [*EXAMPLES, {"label": "cat", **example}])

    assert (answer.status_code, answer.json()["code"]) == (400, "embedding_unknown")
    assert answer.json()["detail"].startswith("examples[10]: ")


@pytest.mark.parametrize(
    ("examples", "code", "detail"),
    [
        (EXAMPLES[:9], "not_enough_examples", "The label 'dog' has 4 different examples, and needs 5"),
        ([*EXAMPLES[:9], EXAMPLES[8]], "not_enough_examples", "The label 'dog' has 4 different"),
        (EXAMPLES[:5], "not_enough_examples", "A classifier needs at least 2 labels"),
        ([], "invalid_request", "examples must be a list of 1 to 10000 objects"),
        ([of("none of these", CATS[0])], "invalid_request", "examples[0].label must be a text"),
        ([of("a\nb", CATS[0])], "invalid_request", "examples[0].label must be a text"),
        ([of("x" * 257, CATS[0])], "invalid_request", "examples[0].label must be a text"),
        ([{"label": "cat"}], "invalid_request", "examples[0]: Send exactly one of image, image_url"),
        ([of("cat", CATS[0]) | {"image_hash": "0" * 64}], "invalid_request", "examples[0]: Send exactly one of"),
        ([{"label": "cat", "image_hash": "0"}], "invalid_request", "examples[0].image_hash must be the SHA-256"),
        ([{"label": "cat", "job_id": "7"}], "invalid_request", "examples[0].job_id must be a UUID"),
        ([{"label": "cat", "file": "7"}], "invalid_request", "examples[0] has an unknown field, file: its fields"),
        ([7], "invalid_request", "examples[0] must be a JSON object with label"),
        ([*EXAMPLES, of("cat", b"no image")], "unsupported_image", "examples[10]: These bytes are not"),
        ([*EXAMPLES, {"label": "cat", "image": "?"}], "invalid_base64", "examples[10]: The image is not valid"),
        ([*EXAMPLES, {"label": "cat", "image": ""}], "invalid_base64", "examples[10]: The image is empty"),
        ([of("cat", b"x")] * 65, "batch_too_large", "A training may have 64 images, and this one has 65"),
    ],
)
async def test_what_a_training_refuses(
    client: httpx.AsyncClient, redis: FakeRedis, examples: list[Any], code: str, detail: str
) -> None:
    answer = await put(client, examples)

    assert (answer.json()["code"], answer.json()["detail"][: len(detail)]) == (code, detail)
    assert await redis.llen(f"rq:queue:{tasks.queue_name(MODEL.id)}") == 0


async def test_image_that_cannot_be_fetched_is_named(client: httpx.AsyncClient, fetcher: FakeFetcher) -> None:
    fetcher.answers["https://host.test/1.png"] = b"no image"

    answer = await put(client, [*EXAMPLES, {"label": "cat", "image_url": "https://host.test/1.png"}])

    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported_image")
    assert answer.json()["detail"].startswith("examples[10]: ")


@pytest.mark.parametrize("name", ["Pets", "-pets", "a" * 65, "p%20ets"])
async def test_name_is_checked(client: httpx.AsyncClient, name: str) -> None:
    for answer in (await put(client, path=name), await client.get(f"/classifiers/{name}", headers=ANN)):
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_classifier_name")


async def test_classifier_belongs_to_its_owner(client: httpx.AsyncClient, sync: SyncRedis) -> None:
    store(sync, make_classifier(), "ann")

    mine = await client.get("/classifiers/pets", headers=ANN)

    assert mine.json()["labels"] == ["cat", "dog"]
    assert (await client.get("/classifiers", headers=ANN)).json() == {"classifiers": [mine.json()]}
    assert (await client.get("/classifiers", headers=BOB)).json() == {"classifiers": []}
    others = [
        await client.get("/classifiers/pets", headers=BOB),
        await client.delete("/classifiers/pets", headers=BOB),
        await client.post("/classifiers/pets/examples", json={"examples": EXAMPLES}, headers=BOB),
        await client.post("/analyze-image", json=base64_body(CATS[0]) | {"classifier": "pets"}, headers=BOB),
        await client.post(
            "/analyze-images", json={"images": [base64_body(CATS[0])], "classifier": "pets"}, headers=BOB
        ),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in others] == [(404, "classifier_not_found")] * 5
    assert [(await client.get("/classifiers")).status_code, (await client.put("/classifiers/a")).status_code] == [
        401
    ] * 2


async def test_deleted_classifier_leaves_nothing(client: httpx.AsyncClient, redis: FakeRedis, sync: SyncRedis) -> None:
    store(sync, make_classifier(), "ann")

    deleted = await client.delete("/classifiers/pets", headers=ANN)

    assert deleted.status_code == 204
    assert [key for key in await redis.keys("*") if b"classifier" in key] == []
    assert (await client.delete("/classifiers/pets", headers=ANN)).status_code == 404


async def test_owner_has_so_many_classifiers(client: httpx.AsyncClient, sync: SyncRedis) -> None:
    for name in ("one", "two"):
        store(sync, make_classifier(name), "ann")

    refused, replaced, other = (
        await put(client, path="three"),
        await put(client, path="two"),
        await put(client, path="three", headers=BOB),
    )

    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_classifiers")
    assert [replaced.status_code, other.status_code] == [202, 202]


async def test_examples_are_added_and_corrected(client: httpx.AsyncClient, redis: FakeRedis, sync: SyncRedis) -> None:
    base = make_classifier()
    store(sync, base, "ann")
    known = next(iter(base.examples))

    answer = await client.post(
        "/classifiers/pets/examples",
        json={"examples": [of("cat", CATS[0]), {"label": "dog", "image_hash": known}]},
        headers=ANN,
    )

    record, plan = await read_plan(redis, answer)
    assert record.training == Training(name="pets", adds=True)
    assert record.model == MODEL.id
    assert [(example.label, example.embedding) for example in plan.examples] == [("cat", None), ("dog", None)]
    assert [bool(example.job_id) for example in plan.examples] == [True, False]


async def test_correction_that_leaves_too_few_examples_is_refused(client: httpx.AsyncClient, sync: SyncRedis) -> None:
    base = make_classifier()
    store(sync, base, "ann")
    cats = [image_hash for image_hash, label in base.examples.items() if label == "cat"]

    answer = await client.post(
        "/classifiers/pets/examples",
        json={"examples": [{"label": "dog", "image_hash": image_hash} for image_hash in cats[:4]]},
        headers=ANN,
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "not_enough_examples")


async def test_classifier_of_another_revision_is_refused_and_says_how_to_make_it_again(
    client: httpx.AsyncClient, redis: FakeRedis, sync: SyncRedis
) -> None:
    store(sync, make_classifier(), "ann")
    await announce(redis, MODEL.model_copy(update={"revision": "r2"}))

    asked = await client.post("/analyze-image", json=base64_body(CATS[0]) | {"classifier": "pets"}, headers=ANN)
    added = await client.post("/classifiers/pets/examples", json={"examples": EXAMPLES}, headers=ANN)

    for answer in (asked, added):
        assert (answer.status_code, answer.json()["code"]) == (409, "classifier_outdated")
        assert "train it again from its images, with PUT /classifiers/pets." in answer.json()["detail"]
    assert (await put(client)).status_code == 202


async def test_job_names_the_version_of_its_classifier(
    client: httpx.AsyncClient, redis: FakeRedis, sync: SyncRedis, steps: Steps
) -> None:
    known = make_classifier()
    store(sync, known, "ann")

    async def ask(**options: str) -> dict[str, Any]:
        sent = base64_body(CATS[0]) | {"classifier": "pets"} | options
        return dict((await client.post("/analyze-image", json=sent, headers=ANN)).json())

    first = await ask()
    record = read_record(await redis.hgetall(keys.job(first["job_id"])))
    assert (record.classifier, record.model) == (ClassifierRef(name="pets", version=known.version), MODEL.id)
    steps.complete(first["job_id"])
    assert (await ask())["status"] == JobStatus.COMPLETED
    store(sync, make_classifier(labels=("cat", "dog", "tree")), "ann")
    assert (await ask())["status"] == JobStatus.PENDING
    assert (await ask(model="other"))["code"] == "invalid_request"


async def test_labels_and_a_classifier_exclude_each_other(client: httpx.AsyncClient) -> None:
    sent = base64_body(CATS[0]) | {"classifier": "pets", "labels": ["a"]}

    answer = await client.post("/analyze-image", json=sent, headers=ANN)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("lacking", "code"),
    [("embeds", "embeddings_not_supported"), ("trains", "training_not_supported")],
)
async def test_workers_that_cannot_train(client: httpx.AsyncClient, redis: FakeRedis, lacking: str, code: str) -> None:
    await announce(redis, embeds=lacking != "embeds", trains=lacking != "trains")

    answer = await put(client)

    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_training_with_the_same_key_runs_once(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    key = {"Idempotency-Key": "k1"}

    first, again, other = (
        await put(client, headers=key),
        await put(client, headers=key),
        await put(client, [*EXAMPLES, of("dog", make_png(1))], headers=key),
    )

    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await redis.llen(f"rq:queue:{tasks.queue_name(MODEL.id)}") == 11


async def test_each_image_counts_as_a_request(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=12)

    first = await client.put("/classifiers/pets", json={"examples": EXAMPLES})
    second = await client.put("/classifiers/pets", json={"examples": EXAMPLES})

    assert [first.status_code, second.status_code] == [202, 429]
    assert first.headers["RateLimit"].startswith('"default";r=2')


async def test_full_queue_refuses_the_training(make_client: MakeClient) -> None:
    client = await make_client(max_queue_depth=6)

    answer = await client.put("/classifiers/pets", json={"examples": EXAMPLES})

    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.json()["detail"].endswith(f"try again in {answer.headers['Retry-After']} s.")


async def test_end_of_a_training_is_in_its_status_and_in_its_webhook(
    make_client: MakeClient, redis: FakeRedis, steps: Steps
) -> None:
    client = await make_client(webhook_secret=(SECRET,))
    url = "https://receiver.example/hooks"
    answer = await client.put(f"/classifiers/pets?webhook_url={url}", json={"examples": EXAMPLES})
    record, plan = await read_plan(redis, answer)
    job_id, about = answer.json()["job_id"], make_classifier().about

    steps.train(job_id, about)

    status = (await client.get(f"/analysis-status/{job_id}")).json()
    assert (status["status"], status["result"]) == ("COMPLETED", None)
    assert status["classifier"] == json.loads(about.model_dump_json())
    assert record.webhook_url == url
    assert [decoded(job) for job in await redis.zrange(keys.DELIVERIES, 0, -1)] == [job_id]
    delivered = read_record(await redis.hgetall(keys.delivery(job_id)))
    assert AnalysisStatus.of(UUID(job_id), delivered).classifier == about
    images = [read_record(await redis.hgetall(keys.job(example.job_id or ""))) for example in plan.examples]
    assert [image.webhook_url for image in images] == [None] * 10


async def test_waiting_training_is_cancelled(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    job_id = (await put(client)).json()["job_id"]

    cancelled = await client.delete(f"/analysis/{job_id}", headers=ANN)

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert await redis.llen(f"rq:queue:{tasks.queue_name(MODEL.id)}") == 10
    assert not await redis.exists(keys.image(job_id))
