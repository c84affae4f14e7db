"""Hugging Face's client for JavaScript, unmodified: `imageClassification` with an `endpointUrl` of the stack."""

import json
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from stack import Stack
from support.api_processes import one_api
from support.samples import CHELSEA, make_png
from support.waiting import wait_until

KEY = "hf_" + "a" * 40
API_KEYS = f"alice:{sha256(KEY.encode()).hexdigest()}"
RunNode = Callable[..., "CompletedProcess[str]"]

Classify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def classify(run_node: RunNode) -> Classify:
    """Call the client, and return what its caller sees."""

    def classify(endpoint: str, path: Path = CHELSEA, form: str = "blob", **rest: Any) -> dict[str, Any]:
        run = run_node("classify.js", json.dumps({"endpointUrl": endpoint, "path": str(path), "form": form, **rest}))
        run.check_returncode()
        return dict(json.loads(run.stdout.splitlines()[-1]))

    return classify


@pytest.fixture
def url(stack: Stack, client: httpx.Client) -> str:
    return f"{stack.api_url}/models/vit-tiny-cifar10"


@pytest.mark.parametrize("form", ["typed blob", "blob", "bytes", "json"])
def test_every_form_that_it_sends_gets_its_labels(url: str, classify: Classify, form: str) -> None:
    labels = classify(url, form=form)["labels"]

    assert labels[0]["label"] == "cat"
    assert len(labels) == 5
    assert all(set(label) == {"label", "score"} for label in labels)


def test_parameters_come_in_json_or_in_the_url(url: str, classify: Classify) -> None:
    by_json = classify(url, form="json", parameters={"top_k": 2, "function_to_apply": "softmax"})
    by_url = classify(f"{url}?top_k=2")

    assert by_json == by_url
    assert len(by_json["labels"]) == 2


def test_error_shows_the_status_and_the_sentence(stack: Stack, url: str, classify: Classify, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no image")

    answers = [classify(url, text), classify(f"{stack.api_url}/models/acme/birds")]

    assert [(answer["name"], answer["status"]) for answer in answers] == [
        ("ProviderApiError", 400),
        ("ProviderApiError", 404),
    ]
    assert "These bytes are not a supported image" in answers[0]["message"]
    assert "Known models: vit-tiny-cifar10." in answers[1]["message"]


def test_access_token_is_the_api_key(stack: Stack, classify: Classify) -> None:
    with one_api(stack.redis_url, API_KEYS=API_KEYS, RATE_LIMIT_MAX_REQUESTS="1000000") as api:
        url = f"{api}/models/vit-tiny-cifar10"
        strange, alice = classify(url), classify(url, accessToken=KEY)

    assert strange["status"] == 401
    assert alice["labels"][0]["label"] == "cat"


def test_client_repeats_a_503_until_the_rate_limit_or_not_at_all(
    stack: Stack, client: httpx.Client, held_worker: Callable[[], None], classify: Classify, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(make_png(770))
    seeds = count(771)
    settings = {"MAX_QUEUE_DEPTH": "1", "API_KEYS": API_KEYS, "RATE_LIMIT_MAX_REQUESTS": "10"}
    with (
        one_api(stack.redis_url, **settings) as api,
        httpx.Client(base_url=api, headers={"X-API-Key": KEY}, trust_env=False) as alice,
    ):

        def is_full() -> bool:
            answer = alice.post("/analyze-image", content=make_png(next(seeds)), headers={"Content-Type": "image/png"})
            return answer.status_code == 503

        wait_until(is_full, "the queue is full")
        url = f"{api}/models/vit-tiny-cifar10"
        once = classify(url, image, accessToken=KEY, options={"retry_on_error": False})
        repeated = classify(url, image, accessToken=KEY)

    assert once["status"] == 503
    assert "no more are accepted" in once["message"]
    assert repeated["status"] == 429
    assert "The limit is 10 requests in 60 s" in repeated["message"]
