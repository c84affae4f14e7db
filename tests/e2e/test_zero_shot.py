"""Labels from every kind of client to the worker of a zero-shot model, and back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from redis import Redis

from image_analysis_client import BadRequest, Client
from image_analysis_common import keys
from image_analysis_common.models import ZERO_SHOT
from stack import Stack
from support.api_processes import WORKER, run_service
from support.samples import CHELSEA, make_png
from support.waiting import wait_until
from support.zero_shot import make_zero_shot

MODEL = "tiny-clip"
LESSON = {"one": 890, "two, or more": 895}
LABELS = ["a cat", "a dog", "red, green", "größe 🐕", "a ship", "a frog", "a horse"]


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker of a tiny CLIP is ready; at the end, the service does not know the model any more."""
    folder = make_zero_shot(tmp_path_factory.mktemp("models") / MODEL, "clip")
    with Redis.from_url(stack.redis_url) as redis:
        with run_service(WORKER, stack.redis_url, MODEL_ID=str(folder)):
            wait_until(lambda: redis.exists(keys.announcement(MODEL)), "the worker is ready", 120)
            yield
        redis.zrem(keys.MODELS, MODEL)
        redis.delete(keys.announcement(MODEL))


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch, worker: None) -> None:
    """Ask 127.0.0.1 itself, whatever proxy, token or offline mode this machine has."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def ask(client: httpx.Client, image: bytes, labels: list[str], **options: Any) -> dict[str, Any]:
    answer = client.post(
        "/analyze-image",
        files={"file": image},
        data={"model": MODEL, "labels": labels, **options},
        headers={"Prefer": "wait=60"},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_question_is_answered_once_and_then_from_the_cache(client: httpx.Client) -> None:
    image = make_png(880)

    first = ask(client, image, LABELS, top_k="7")
    again = ask(client, image, LABELS, top_k="7")
    other = ask(client, image, ["a house", "a tree"], hypothesis_template="{}")

    scores = {found["label"]: found["confidence"] for found in first["result"]["predictions"]}
    assert set(scores) == set(LABELS)
    assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
    assert [*scores.values()] == sorted(scores.values(), reverse=True)
    assert (first["cached"], again["cached"], again["result"]) == (False, True, first["result"])
    assert {found["label"] for found in other["result"]["predictions"]} == {"a house", "a tree"}


def test_single_label_of_a_softmax_is_certain(client: httpx.Client) -> None:
    assert ask(client, make_png(881), ["red, green", ""])["result"]["predictions"] == [
        {"label": "red, green", "confidence": 1.0}
    ]


def test_batch_asks_the_same_question_of_every_image(client: httpx.Client) -> None:
    sent = [("file", make_png(number)) for number in (882, 883)] + [("file", b"no image")]
    answer = client.post("/analyze-images", files=sent, data={"model": MODEL, "labels": LABELS}).json()

    jobs = client.get(f"/analysis-batches/{answer['batch_id']}", params={"wait": 60}).json()["jobs"]

    assert [job["status"] for job in jobs] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert all(job["result"]["label"] in LABELS for job in jobs[:2])


def test_model_is_listed_with_its_task(client: httpx.Client) -> None:
    models = {model["id"]: (model["task"], model["labels_count"]) for model in client.get("/models").json()["models"]}

    assert models == {MODEL: (ZERO_SHOT, 0), "vit-tiny-cifar10": ("image-classification", 10)}


@pytest.mark.parametrize("labels", [LABELS, [f"thing {number}" for number in range(150)]])
def test_client_of_hugging_face_gets_every_label_or_the_best_hundred(
    stack: Stack, client: httpx.Client, labels: list[str]
) -> None:
    hugging_face = InferenceClient(f"{stack.api_url}/models/{MODEL}")

    found = hugging_face.zero_shot_image_classification(CHELSEA, labels, hypothesis_template="A sketch of {}.")

    assert len(found) == min(len(labels), 100)
    assert {label.label for label in found} <= set(labels)
    assert [label.score for label in found] == sorted((label.score for label in found), reverse=True)
    data = {"hypothesis_template": "A sketch of {}.", "top_k": str(len(found))}
    ours = ask(client, CHELSEA.read_bytes(), labels, **data)
    assert [(best["label"], best["confidence"]) for best in ours["result"]["predictions"]] == [
        (label.label, label.score) for label in found
    ]


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # The client calls its own library the old way.
async def test_asynchronous_client_of_hugging_face_gets_the_same(stack: Stack) -> None:
    url = f"{stack.api_url}/models/{MODEL}"
    expected = InferenceClient(url).zero_shot_image_classification(CHELSEA, LABELS)

    async with AsyncInferenceClient(url) as hugging_face:
        assert await hugging_face.zero_shot_image_classification(CHELSEA, LABELS) == expected


def test_question_that_does_not_fit_shows_what_to_do_in_the_client_of_hugging_face(stack: Stack) -> None:
    with pytest.raises(HfHubHTTPError) as no_labels:
        InferenceClient(f"{stack.api_url}/models/{MODEL}").image_classification(CHELSEA)
    with pytest.raises(HfHubHTTPError) as labels:
        InferenceClient(f"{stack.api_url}/models/vit-tiny-cifar10").zero_shot_image_classification(CHELSEA, LABELS)

    assert f"{MODEL} has no labels of its own: send some for it to choose from." in str(no_labels.value)
    assert "vit-tiny-cifar10 has labels of its own: leave them out" in str(labels.value)
    assert [error.value.response.status_code for error in (no_labels, labels)] == [400, 400]


def test_python_client_asks_one_image_and_many(stack: Stack) -> None:
    with Client(stack.api_url) as client:
        result = client.classify(CHELSEA, model=MODEL, labels=LABELS, top_k=7)
        outcomes = list(client.classify_many([CHELSEA, make_png(884)], model=MODEL, labels=LABELS, top_k=7))
        with pytest.raises(BadRequest) as refused:
            client.classify(CHELSEA, model=MODEL)

    assert {found.label for found in result.predictions} == set(LABELS)
    assert result in [outcome.result for outcome in outcomes]
    assert refused.value.code == "labels_required"


def test_command_line_asks_and_says_what_is_missing(stack: Stack) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.prefix, "bin", "image-analysis")), "classify", str(CHELSEA), "--url", stack.api_url]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)

    asked = run("--model", MODEL, "--labels", "a cat, a dog", "--template", "A sketch of {}.")
    missing = run("--model", MODEL)
    foreign = run("--labels", "a cat,a dog")

    assert (asked.returncode, missing.returncode, foreign.returncode) == (0, 2, 2)
    row = json.loads(asked.stdout)
    assert {found["label"] for found in row["result"]["predictions"]} == {"a cat", "a dog"}
    assert f"{MODEL} has no labels of its own: send some" in missing.stderr
    assert "vit-tiny-cifar10 has labels of its own: leave them out" in foreign.stderr


def test_classifier_is_trained_on_the_embeddings_of_the_image_tower(client: httpx.Client) -> None:
    """Random weights tell no labels apart: only the way is tested here."""
    images = [
        (label, (f"{seed}.png", make_png(seed)))
        for label, start in (("red", 900), ("blue", 905))
        for seed in range(start, start + 5)
    ]
    job_id = client.put(f"/classifiers/colors?model={MODEL}", files=images).json()["job_id"]
    ended = wait_until(lambda: trained(client, job_id), "the training ends")
    assert ended["classifier"]["model"]["id"] == MODEL

    answer = client.post(
        "/analyze-image",
        files={"file": make_png(911)},
        data={"classifier": "colors"},
        headers={"Prefer": "wait=60"},
    ).json()

    assert {found["label"] for found in answer["result"]["predictions"]} == {"red", "blue", "none of these"}
    assert client.delete("/classifiers/colors").status_code == 204


def trained(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    status = client.get(f"/analysis-status/{job_id}").json()
    return dict(status) if "classifier" in status else None


def test_classifier_is_taught_with_the_embeddings_of_a_zero_shot_model(stack: Stack) -> None:
    examples = {label: [make_png(start + number) for number in range(5)] for label, start in LESSON.items()}
    with Client(stack.api_url) as client:
        taught = client.teach("tiny", examples, model=MODEL)
        result = client.classify(CHELSEA, classifier="tiny")
        added = client.teach("tiny", {"one": [make_png(901)]}, adds=True)
        client.delete_classifier("tiny")

    assert (taught.model.id, result.model, added.model) == (MODEL, taught.model, taught.model)
    assert {found.label for found in result.predictions} == {*LESSON, "none of these"}
