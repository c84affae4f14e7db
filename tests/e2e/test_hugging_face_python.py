"""Hugging Face's client for Python, as it is, on the running stack: `InferenceClient.image_classification`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError
from pytest_httpserver import HTTPServer

from stack import Stack
from support.api_processes import one_api
from support.samples import CHELSEA, make_jpeg, make_png
from support.waiting import wait_until

KEY = "hf_" + "a" * 40


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask 127.0.0.1 itself, whatever proxy, token or offline mode this machine has."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def url(stack: Stack, client: httpx.Client) -> str:
    return f"{stack.api_url}/models/vit-tiny-cifar10"


@pytest.mark.parametrize("image", [CHELSEA, str(CHELSEA), CHELSEA.read_bytes()], ids=["path", "text", "bytes"])
@pytest.mark.parametrize("top_k", [None, 2])
def test_every_source_that_it_takes_gets_its_labels(url: str, image: Any, top_k: int | None) -> None:
    labels = InferenceClient(url).image_classification(image, top_k=top_k)

    assert len(labels) == (top_k or 5)
    assert labels[0].label == "cat"
    assert labels[0].score > 0.9
    assert [label.score for label in labels] == sorted((label.score for label in labels), reverse=True)


def test_image_that_the_client_fetches_is_sent_with_its_servers_type(url: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/cat").respond_with_data(CHELSEA.read_bytes(), content_type="binary/octet-stream")

    labels = InferenceClient().image_classification(httpserver.url_for("/cat"), model=url)

    assert labels[0].label == "cat"


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # The client calls its own library the old way.
async def test_asynchronous_client_gets_the_same_labels(url: str) -> None:
    async with AsyncInferenceClient(url) as hugging_face:
        labels = await hugging_face.image_classification(CHELSEA, top_k=1, function_to_apply="softmax")

    assert [label.label for label in labels] == ["cat"]


@pytest.mark.parametrize(
    ("model", "image", "options", "error"),
    [
        ("vit-tiny-cifar10", b"none", {}, (400, "These bytes are not a supported image")),
        ("vit-tiny-cifar10", make_jpeg(1, size_px=(300, 300))[:3000], {}, (400, "The image is cut short")),
        ("vit-tiny-cifar10", CHELSEA, {"function_to_apply": "sigmoid"}, (400, "This model applies softmax")),
        ("vit-tiny-cifar10", CHELSEA, {"top_k": 0}, (400, "parameters.top_k must be a whole number from 1 to 100.")),
        ("acme/birds", CHELSEA, {}, (404, "There is no such model. Known models: vit-tiny-cifar10.")),
    ],
)
def test_error_shows_the_status_and_the_sentence(
    stack: Stack, client: httpx.Client, model: str, image: Any, options: dict[str, Any], error: tuple[int, str]
) -> None:
    hugging_face = InferenceClient(f"{stack.api_url}/models/{model}")

    with pytest.raises(HfHubHTTPError) as raised:
        hugging_face.image_classification(image, **options)

    status, sentence = error
    assert raised.value.response.status_code == status
    assert sentence in str(raised.value)


@pytest.fixture
def guarded(stack: Stack) -> Iterator[str]:
    """A model's URL on an API with a key, and room for one request."""
    keys = f"alice:{sha256(KEY.encode()).hexdigest()}"
    with one_api(stack.redis_url, API_KEYS=keys, RATE_LIMIT_MAX_REQUESTS="1") as api:
        yield f"{api}/models/vit-tiny-cifar10"


def test_token_is_the_api_key_and_the_limit_is_a_429_with_its_time(client: httpx.Client, guarded: str) -> None:
    strange, alice = InferenceClient(guarded, token="hf_no"), InferenceClient(guarded, token=KEY)

    with pytest.raises(HfHubHTTPError) as unknown:
        strange.image_classification(CHELSEA)
    labels = alice.image_classification(CHELSEA)
    with pytest.raises(HfHubHTTPError) as limited:
        alice.image_classification(CHELSEA)

    assert "The API key is missing or unknown." in str(unknown.value)
    assert labels[0].label == "cat"
    assert limited.value.response.status_code == 429
    assert "Retry after" in str(limited.value)
    assert "in current 60s window" in str(limited.value)


def test_request_repeated_after_a_503_is_analyzed_once(
    url: str, held_worker: Callable[[], None], events: Callable[..., list[dict[str, Any]]]
) -> None:
    image = make_png(760)
    impatient = InferenceClient(url, headers={"Prefer": "wait=1"})

    refused = []
    for _ in range(2):
        with pytest.raises(HfHubHTTPError) as raised:
            impatient.image_classification(image)
        refused.append(raised.value)
    held_worker()
    labels = InferenceClient(url).image_classification(image)

    assert [error.response.status_code for error in refused] == [503, 503]
    assert refused[0].response.headers["retry-after"] == "1"
    assert "send the same request again" in str(refused[0])
    assert len(labels) == 5
    first, *later = events(event="job_enqueued", image_hash=sha256(image).hexdigest())
    assert "follows" not in first
    assert later
    assert {job["follows"] for job in later} == {first["job_id"]}


def test_client_that_gives_up_leaves_a_job_that_ends_in_the_cache(
    client: httpx.Client,
    url: str,
    held_worker: Callable[[], None],
    events: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(make_png(761))
    before = len(events(event="request_ended", path="/models/vit-tiny-cifar10", status=503))

    with ThreadPoolExecutor() as threads:
        gone = threads.submit(InferenceClient(url, timeout=1).image_classification, image)
        with suppress(InferenceTimeoutError):
            gone.result()
    wait_until(
        lambda: len(events(event="request_ended", path="/models/vit-tiny-cifar10", status=503)) > before,
        "the API has noticed that the client is gone",
    )
    held_worker()

    def again() -> bool:
        answer = client.post("/analyze-image", content=image.read_bytes(), headers={"Content-Type": "image/png"})
        return bool(answer.status_code == 200 and answer.json()["cached"])

    wait_until(again, "the result is in the cache")
