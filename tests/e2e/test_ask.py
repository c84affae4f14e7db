"""Every way to submit an image and ask for its job, on the running stack."""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import uuid4

import httpx
from pytest_httpserver import HTTPServer

from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from stack import Stack
from support.samples import CHELSEA, base64_body, make_png
from support.waiting import wait_until

Ask = Callable[[str], dict[str, Any]]


def labels(result: dict[str, Any]) -> list[str]:
    return [prediction["label"] for prediction in result["predictions"]]


def test_every_form_of_a_submission_is_answered_as_its_options_ask(client: httpx.Client, ask: Ask) -> None:
    image, kind = make_png(500), {"Content-Type": "image/png"}
    answers = [
        client.post("/analyze-image", files={"file": CHELSEA.read_bytes()}, data={"top_k": "3", "priority": "high"}),
        client.post("/analyze-image", content=image, params={"top_k": 10}, headers=kind),
        client.post("/analyze-image", json=base64_body(image) | {"min_confidence": 0.2}),
        client.post("/analyze-image", content=image, headers={"Content-Type": "application/octet-stream"}),
    ]

    cat, everything, likely, plain = [ask(answer.json()["job_id"])["result"] for answer in answers]
    again = client.post("/analyze-image", content=image, params={"top_k": 7}, headers=kind)

    assert (cat["label"], len(cat["predictions"])) == ("cat", 3)
    assert len(set(labels(everything))) == 10
    assert sum(prediction["confidence"] for prediction in everything["predictions"]) > 0.999
    assert labels(plain) == labels(everything)[:5]
    assert labels(likely) == [p["label"] for p in plain["predictions"] if p["confidence"] >= 0.2]
    assert (again.status_code, again.json()["cached"]) == (200, True)
    assert labels(again.json()["result"]) == labels(everything)[:7]


def test_two_models_answer_side_by_side(tmp_path: Path) -> None:
    second = copytree(BUNDLED_FOLDER, tmp_path / "second")
    config = json.loads((second / "config.json").read_text())
    config["id2label"] = {number: f"second {label}" for number, label in config["id2label"].items()}
    (second / "config.json").write_text(json.dumps(config))
    variables = {"REDIS_URL": "", "REDIS_HOST": "", "SECOND_MODEL_ID": str(second)}

    with (
        Stack(variables, free_ports=True, log=tmp_path / "log") as stack,
        httpx.Client(base_url=stack.api_url, trust_env=False) as client,
    ):

        def label(job_id: str) -> str | None:
            status = client.get(f"/analysis-status/{job_id}").raise_for_status().json()
            return status["result"] and str(status["result"]["label"])

        wait_until(lambda: client.get("/models/second").is_success, "the second model is announced")
        jobs = [
            client.post("/analyze-image", files={"file": CHELSEA.read_bytes()}, data=options).json()["job_id"]
            for options in ({}, {"model": "second"})
        ]
        given = [wait_until(partial(label, job_id), f"job {job_id} ends") for job_id in jobs]
        models = client.get("/models").json()["models"]
        os.kill(stack.pid("second_worker"), signal.SIGSTOP)
        wait_until(lambda: client.get("/models/second").json()["workers"] == 0, "the silent worker counts as gone")
        image = make_png(501)
        waiting = client.post("/analyze-image", files={"file": image}, data={"model": "second"})
        os.kill(stack.pid("second_worker"), signal.SIGCONT)
        late = wait_until(partial(label, waiting.json()["job_id"]), "the waiting job ends")

    assert given == ["cat", "second cat"]
    assert [(model["id"], model["is_default"], model["workers"]) for model in models] == [
        ("second", False, 1),
        (BUNDLED_MODEL, True, 1),
    ]
    assert "No worker serves its model now" in waiting.json()["message"]
    assert late.startswith("second ")


def test_request_sent_twice_is_one_job_over_a_restart_of_the_api(
    stack: Stack, client: httpx.Client, ask: Ask, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/once.png").respond_with_data(make_png(502))
    body, key = {"image_url": httpserver.url_for("/once.png")}, {"Idempotency-Key": str(uuid4())}

    first = client.post("/analyze-image", json=body, headers=key)
    stack.restart("api")
    stack.wait_until_ready()
    second = client.post("/analyze-image", json=body, headers=key)
    ask(first.json()["job_id"])
    third = client.post("/analyze-image", json=body, headers=key)
    other = client.post("/analyze-image", json=base64_body(make_png(503)), headers=key)

    assert first.status_code == 202
    assert first.json() == second.json() == third.json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(httpserver.log) == 1
