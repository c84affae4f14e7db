"""Labels learned from real photos, with every process: the answers, their owner, restarts, and what can go wrong."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from redis import Redis
from sklearn.linear_model import LogisticRegression

from image_analysis_common import keys
from image_analysis_common.classifiers import NONE_OF_THESE
from image_analysis_common.images import image_digest
from image_analysis_common.models import ImageEmbedding, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.fit import STRENGTHS
from stack import Stack
from support.announcements import make_result
from support.api_processes import one_api
from support.replies import decoded, raw
from support.samples import CHELSEA, make_png
from support.waiting import wait_until

PHOTOS = Path(str(files("conformal_clip_data"))) / "data" / "textile_images" / "simulated"
LABELS = ("global", "local", "nominal")
SEED, EXAMPLES, OTHERS = 3, 20, 100
"""Of each label, so many photos are examples, and so many others are asked about."""

OTHER_PHOTOS = sorted(Path("packages/worker/src/image_analysis_worker/photos").glob("*.jpg"))
ANN, BOB = ({"X-API-Key": name * 14} for name in ("ann", "bob"))
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """Ann, at an API that also knows Bob."""
    hashes = (f"{key['X-API-Key'][:3]}:{sha256(key['X-API-Key'].encode()).hexdigest()}" for key in (ANN, BOB))
    variables = {"API_KEYS": ",".join(hashes), "RATE_LIMIT_MAX_REQUESTS": "1000000", "MAX_BATCH_IMAGES": "400"}
    with (
        one_api(stack.redis_url, WEBHOOK_SECRET="", **variables) as url,
        httpx.Client(base_url=url, trust_env=False, headers=ANN, timeout=60) as client,
    ):
        yield client
        for found in client.get("/classifiers").json()["classifiers"]:
            client.delete(f"/classifiers/{found['name']}")


@pytest.fixture(scope="module")
def redis(stack: Stack) -> Iterator[Redis]:
    with Redis.from_url(stack.redis_url) as redis:
        yield redis


@pytest.fixture(scope="module")
def photos() -> dict[str, list[bytes]]:
    """The photos of each label: the examples first."""
    numbers = np.random.default_rng(SEED)
    return {
        label: [
            path.read_bytes()
            for path in numbers.permutation(np.array(sorted((PHOTOS / label).glob("*.jpg"))))[: EXAMPLES + OTHERS]
        ]
        for label in LABELS
    }


def wait(client: httpx.Client, job_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        status = client.get(f"/analysis-status/{job_id}", params={"wait": 10}).raise_for_status().json()
        return status if status["status"] in ENDED else None

    return wait_until(ended, f"job {job_id} ends")


def train(client: httpx.Client, name: str, images: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    sent = [(label, (f"{number}.jpg", image)) for label in images for number, image in enumerate(images[label])]
    answer = client.put(f"/classifiers/{name}", files=sent)
    assert answer.status_code == 202, answer.text
    return wait(client, answer.json()["job_id"])


def ask(client: httpx.Client, images: Sequence[bytes], name: str = "textiles") -> list[dict[str, float]]:
    """Return the confidence of each label for each image."""
    answer = client.post("/analyze-images", files=[("file", image) for image in images], data={"classifier": name})
    assert answer.is_success, answer.text
    batch = f"/analysis-batches/{answer.json()['batch_id']}"

    def ended() -> list[dict[str, Any]] | None:
        found = client.get(batch, params={"wait": 20}).json()
        return found["jobs"] if all(job["status"] in ENDED for job in found["jobs"]) else None

    jobs = wait_until(ended, "the batch ends")
    return [{found["label"]: found["confidence"] for found in job["result"]["predictions"]} for job in jobs]


def best(answer: dict[str, float]) -> str:
    return max(answer, key=lambda label: answer[label])


@pytest.fixture(scope="module")
def textiles(client: httpx.Client, photos: dict[str, list[bytes]]) -> dict[str, Any]:
    """A classifier that was trained on the examples."""
    ended = train(client, "textiles", {label: found[:EXAMPLES] for label, found in photos.items()})
    assert ended["status"] == "COMPLETED", ended
    return dict(ended["classifier"])


@pytest.fixture(scope="module")
def answers(client: httpx.Client, textiles: Any, photos: dict[str, list[bytes]]) -> list[dict[str, float]]:
    return ask(client, [image for label in LABELS for image in photos[label][EXAMPLES:]])


def embed(redis: Redis, images: Sequence[bytes]) -> np.ndarray:
    """Return the embeddings that the workers have left in the cache."""
    cached = [redis.hgetall(keys.embedding(image_digest(image))) for image in images]
    return np.array([np.frombuffer(raw(next(iter(found.values()))), "<f4") for found in cached], np.float64)


def test_training_says_what_it_has_learned(client: httpx.Client, textiles: dict[str, Any]) -> None:
    print(f"trained in {textiles['training_ms']:.0f} ms, cross-validated accuracy {textiles['accuracy']:.2f}")

    assert (textiles["name"], textiles["labels"]) == ("textiles", list(LABELS))
    assert textiles["examples"] == dict.fromkeys(LABELS, EXAMPLES)
    assert [sum(row) for row in textiles["confusion"]["counts"]] == [EXAMPLES] * 3
    right = sum(row[place] for place, row in enumerate(textiles["confusion"]["counts"]))
    assert textiles["accuracy"] == pytest.approx(right / (3 * EXAMPLES))
    assert client.get("/classifiers/textiles").json() == textiles
    assert client.get("/classifiers").json()["classifiers"] == [textiles]


def test_other_photos_are_recognized(answers: list[dict[str, float]]) -> None:
    shares = [
        sum(best(answer) == label for answer in answers[start : start + OTHERS]) / OTHERS
        for start, label in zip(range(0, 3 * OTHERS, OTHERS), LABELS, strict=True)
    ]
    print(f"right answers of each label: {shares}")

    assert np.mean(shares) >= 0.65


def test_answers_are_those_of_a_reference(
    redis: Redis, answers: list[dict[str, float]], photos: dict[str, list[bytes]]
) -> None:
    """The reference: another solver, on the embeddings as they are, with the penalty converted to their units."""
    examples = embed(redis, [image for label in LABELS for image in photos[label][:EXAMPLES]])
    others = embed(redis, [image for label in LABELS for image in photos[label][EXAMPLES:]])
    truth = np.repeat(LABELS, EXAMPLES)
    scale = np.sqrt(np.square(examples - examples.mean(axis=0)).sum(axis=1).mean())
    shares = np.array([[answer[label] / (1 - answer[NONE_OF_THESE]) for label in LABELS] for answer in answers])

    differences = []
    for strength in STRENGTHS:
        penalty = strength * len(truth) / scale**2
        reference = LogisticRegression(C=penalty, tol=1e-9, max_iter=10_000).fit(examples, truth)
        differences.append(np.abs(reference.predict_proba(others) - shares).max())

    assert min(differences) < 1e-4


def test_photos_of_something_else_are_none_of_these(client: httpx.Client, textiles: Any) -> None:
    answers = ask(client, [CHELSEA.read_bytes(), *(path.read_bytes() for path in OTHER_PHOTOS)])

    assert len(answers) > 4
    assert sum(best(answer) == NONE_OF_THESE for answer in answers) > len(answers) / 2


def test_known_image_is_neither_decoded_nor_put_through_the_model(
    client: httpx.Client, redis: Redis, textiles: Any, photos: dict[str, list[bytes]]
) -> None:
    image = photos["local"][0]
    answer = client.post(
        "/analyze-image", files={"file": image}, data={"classifier": "textiles"}, headers={"Prefer": "wait=60"}
    ).json()

    assert (answer["status"], answer["cached"]) == ("COMPLETED", True)


def test_others_cannot_see_it(client: httpx.Client, textiles: Any) -> None:
    sent: dict[str, Any] = {"files": {"file": make_png(910)}, "data": {"classifier": "textiles"}, "headers": BOB}
    answers = [
        client.get("/classifiers/textiles", headers=BOB),
        client.delete("/classifiers/textiles", headers=BOB),
        client.post("/analyze-image", **sent),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "classifier_not_found")] * 3


def test_corrected_answer_becomes_an_example(client: httpx.Client, photos: dict[str, list[bytes]]) -> None:
    train(client, "corrected", {label: found[:6] for label, found in photos.items()})
    sent: dict[str, Any] = {"files": {"file": photos["local"][50]}, "data": {"classifier": "corrected"}}
    job_id = client.post("/analyze-image", headers={"Prefer": "wait=60"}, **sent).json()["job_id"]
    wrong = {"label": "nominal", "job_id": job_id}

    for label in ("nominal", "local"):
        added = client.post("/classifiers/corrected/examples", json={"examples": [wrong | {"label": label}]})
        ended = wait(client, added.json()["job_id"])

    assert ended["classifier"]["examples"] == {"global": 6, "local": 7, "nominal": 6}
    again = client.post("/analyze-image", headers={"Prefer": "wait=60"}, **sent).json()
    assert (again["status"], again["job_id"] != job_id) == ("COMPLETED", True)


def test_corrupt_image_fails_the_training_and_is_named(client: httpx.Client, photos: dict[str, list[bytes]]) -> None:
    images = {label: [*found[:5]] for label, found in photos.items()}
    corrupt = images["local"][2] = images["local"][2][: len(images["local"][2]) // 2]

    ended = train(client, "corrupt", images)

    assert (ended["status"], ended["error"]["code"]) == ("FAILED", "corrupt_image")
    assert ended["error"]["detail"].startswith(f"examples[7] (SHA-256 {image_digest(corrupt)[:12]}...): The image")
    assert client.get("/classifiers/corrupt").status_code == 404


class Waiting:
    """A training that waits for the job of one example, which no worker has."""

    def __init__(self, client: httpx.Client, redis: Redis, name: str, photos: dict[str, list[bytes]]) -> None:
        self._redis, self._example = redis, str(uuid4())
        record = JobRecord(status=JobStatus.PENDING, image_hash="7" * 64, owner="ann", embedding=True)
        redis.hset(keys.job(self._example), mapping=record.to_hash())
        redis.expire(keys.job(self._example), 600)
        named = [{"label": label, "image_hash": image_digest(image)} for label in photos for image in photos[label][:6]]
        sent = {"examples": [*named, {"label": "local", "job_id": self._example}]}
        answer = client.put(f"/classifiers/{name}", json=sent)
        assert answer.status_code == 202, answer.text
        self.job_id = answer.json()["job_id"]
        self.wait_for("PROCESSING")

    @property
    def status(self) -> str:
        return decoded(self._redis.hget(keys.job(self.job_id), "status"))

    def wait_for(self, status: str) -> None:
        wait_until(lambda: self.status == status, f"the training is {status}")

    def end_example(self) -> None:
        announced = json.loads(self._redis.get(keys.announcement("vit-tiny-cifar10")) or b"{}")
        vector = np.full(192, 192**-0.5, "<f4")
        result = make_result().model_copy(update={"embedding": ImageEmbedding.pack(vector.tobytes())})
        text = json.loads(result.model_dump_json()) | {"model": announced["model"]}
        self._redis.hset(keys.job(self._example), mapping={"status": "COMPLETED", "result": json.dumps(text)})


@pytest.mark.usefixtures("textiles")
def test_cancelled_training_makes_nothing_and_others_go_on_meanwhile(
    client: httpx.Client, redis: Redis, photos: dict[str, list[bytes]]
) -> None:
    training = Waiting(client, redis, "cancelled", photos)

    meanwhile = ask(client, [make_png(911)])
    cancelled = client.delete(f"/analysis/{training.job_id}")

    assert len(meanwhile) == 1
    assert cancelled.status_code == 202
    training.wait_for("CANCELLED")
    training.end_example()
    assert client.get("/classifiers/cancelled").status_code == 404
    assert ask(client, [make_png(912)])  # the worker has survived


@pytest.mark.usefixtures("textiles")
def test_training_of_a_killed_worker_is_done_again(
    client: httpx.Client, stack: Stack, redis: Redis, photos: dict[str, list[bytes]]
) -> None:
    training = Waiting(client, redis, "killed", photos)

    os.kill(stack.pid("worker"), signal.SIGKILL)
    wait_until(lambda: redis.hget(f"rq:job:{training.job_id}", "retries_left") == b"2", "it is taken for lost")
    training.end_example()

    ended = wait(client, training.job_id)
    assert (ended["status"], ended["classifier"]["examples"]["local"]) == ("COMPLETED", 7)


@pytest.mark.usefixtures("textiles")
def test_training_of_a_worker_that_stops_is_given_back(
    client: httpx.Client, stack: Stack, redis: Redis, photos: dict[str, list[bytes]]
) -> None:
    training = Waiting(client, redis, "stopped", photos)

    stack.restart("worker")
    training.end_example()

    assert wait(client, training.job_id)["status"] == "COMPLETED"
    assert redis.hget(f"rq:job:{training.job_id}", "retries_left") == b"3"


def test_answers_are_the_same_after_a_restart_of_everything(
    stack: Stack, client: httpx.Client, redis: Redis, textiles: dict[str, Any], photos: dict[str, list[bytes]]
) -> None:
    images = [photos[label][EXAMPLES + 5] for label in LABELS]
    before = ask(client, images)

    for program in ("redis", "worker", "api"):
        stack.restart(program)
    stack.wait_until_ready()
    wait_until(lambda: client.get("/health/ready").status_code == 200, "the other API is ready")
    for image in images:
        redis.delete(keys.result(image_digest(image)), keys.embedding(image_digest(image)))

    assert client.get("/classifiers/textiles").json() == textiles
    # A model rounds otherwise if other images are in the batch.
    assert ask(client, images) == [pytest.approx(answer, abs=1e-4) for answer in before]
