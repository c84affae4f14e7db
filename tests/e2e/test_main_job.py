"""The main use case through every process: post an image, get its label."""

import base64
import os
import signal
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from transformers import pipeline

from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from stack import Stack
from support.samples import CHELSEA, base64_body, encode, make_image, make_jpeg, make_png
from support.waiting import wait_until

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
Ask = Callable[[str], dict[str, Any]]


def test_twenty_images_get_the_pipelines_own_labels(client: httpx.Client, ask: Ask, httpserver: HTTPServer) -> None:
    images = [CHELSEA.read_bytes()]
    images += [encode(make_image(n, size_px=(60 + n, 90 - n)), FORMATS[n % 5]) for n in range(1, 20)]
    jobs = []
    for number, image in enumerate(images):
        httpserver.expect_request(f"/{number}").respond_with_data(image)
        by_url = {"image_url": httpserver.url_for(f"/{number}")}
        answer = client.post("/analyze-image", json=by_url if number % 2 else base64_body(image))
        assert answer.status_code == 202, answer.text
        jobs.append(answer.json()["job_id"])

    statuses = [ask(job_id) for job_id in jobs]

    classify = pipeline("image-classification", model=str(BUNDLED_FOLDER))
    for image, status in zip(images, statuses, strict=True):
        best = classify(Image.open(BytesIO(image)), top_k=1)[0]
        assert (status["status"], status["result"]["label"]) == ("COMPLETED", best["label"])
        assert status["result"]["confidence"] == pytest.approx(best["score"], abs=1e-3)
        assert status["cached"] is False
    assert statuses[0]["result"]["label"] == "cat"


def test_same_image_is_answered_from_the_cache_in_every_form(
    client: httpx.Client, ask: Ask, httpserver: HTTPServer
) -> None:
    image = make_png(100)
    first = ask(client.post("/analyze-image", json=base64_body(image)).json()["job_id"])
    httpserver.expect_request("/again").respond_with_data(image)

    data_url = "data:image/png;base64," + base64.b64encode(image).decode()
    answers = [
        client.post("/analyze-image", json=body)
        for body in ({"image_url": httpserver.url_for("/again")}, {"image_data": data_url})
    ]

    for answer in answers:
        assert answer.status_code == 200
        assert answer.json() == first | {"job_id": answer.json()["job_id"], "cached": True}
        assert ask(answer.json()["job_id"]) == answer.json()


def test_job_survives_a_restart_of_the_api(stack: Stack, client: httpx.Client, ask: Ask) -> None:
    job_id = client.post("/analyze-image", json=base64_body(make_png(101))).json()["job_id"]

    stack.restart("api")
    stack.wait_until_ready()

    assert ask(job_id)["status"] == "COMPLETED"


def test_killed_worker_is_started_again_and_works(stack: Stack, client: httpx.Client, ask: Ask) -> None:
    killed = stack.pid("worker")
    os.kill(killed, signal.SIGKILL)
    job_id = client.post("/analyze-image", json=base64_body(make_png(102))).json()["job_id"]

    assert ask(job_id)["status"] == "COMPLETED"
    assert stack.pid("worker") != killed


def test_truncated_jpeg_ends_as_failed(client: httpx.Client, ask: Ask) -> None:
    image = make_jpeg(103, size_px=(400, 300))

    answer = client.post("/analyze-image", json=base64_body(image[: len(image) * 2 // 3]))
    status = ask(answer.json()["job_id"])

    assert answer.status_code == 202
    assert (status["status"], status["result"], status["error"]["code"]) == ("FAILED", None, "corrupt_image")


def test_request_id_is_on_every_line_from_the_request_to_the_worker(
    client: httpx.Client, ask: Ask, events: Callable[..., list[dict[str, Any]]]
) -> None:
    headers = {"X-Request-ID": "order-104"}
    job_id = client.post("/analyze-image", json=base64_body(make_png(104)), headers=headers).json()["job_id"]
    ask(job_id)

    wait_until(lambda: len(events(request_id="order-104")) == 3, "all lines are written")
    lines = events(request_id="order-104")

    assert {(line["service"], line["event"]) for line in lines} == {
        ("api", "job_enqueued"),
        ("api", "request_ended"),
        ("worker", "job_completed"),
    }
    assert {line["job_id"] for line in lines} == {job_id}


def test_start_up_log_says_what_is_served_and_how_good_it_is(events: Callable[..., list[dict[str, Any]]]) -> None:
    started = events(service="worker", event="worker_started")[0]

    assert (started["model"]["id"], started["accuracy"]) == ("vit-tiny-cifar10", 0.9001)
    assert "cat" in started["labels"]
