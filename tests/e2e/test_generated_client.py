"""A client generated from the OpenAPI document classifies images, with types from the request to the label."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer

from stack import Stack
from support.samples import CHELSEA, make_png
from support.waiting import PATIENCE_S, wait_until

PACKAGE = "generated_client"
# The generator does not know ranges of media types.
CONFIGURATION = {"content_type_overrides": {"image/*": "application/octet-stream"}}

Operation = Callable[..., Any]


@pytest.fixture(scope="module")
def package(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated package, which contains every operation."""
    folder = tmp_path_factory.mktemp("generated")
    document = httpx.get(f"{stack.api_url}/openapi.json", trust_env=False).raise_for_status()
    (folder / "openapi.json").write_text(document.text)
    (folder / "configuration.json").write_text(json.dumps(CONFIGURATION))
    scripts = Path(sys.prefix, "bin")
    command = [
        str(scripts / "openapi-python-client"),
        "generate",
        "--path",
        "openapi.json",
        "--config",
        "configuration.json",
    ]
    command += ["--meta", "none", "--output-path", PACKAGE, "--fail-on-warning"]
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}  # it formats with ruff

    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")
    named = {operation["operationId"] for path in document.json()["paths"].values() for operation in path.values()}
    assert {path.stem for path in folder.glob(f"{PACKAGE}/api/*/*.py")} - {"__init__"} == named
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield import_module(PACKAGE)


@pytest.fixture
def call(package: ModuleType, client: httpx.Client) -> Iterator[Operation]:
    """Call an operation of the generated client by its name; return its answer with the parsed body."""
    modules = {path.stem: path for path in Path(str(package.__file__)).parent.glob("api/*/*.py")}
    with package.Client(base_url=str(client.base_url), httpx_args={"trust_env": False}) as generated:

        def call(name: str, *arguments: object, **options: object) -> Any:
            operation = import_module(f"{PACKAGE}.api.{modules[name].parent.name}.{name}")
            return operation.sync_detailed(*arguments, client=generated, **options)

        yield call


@pytest.fixture
def models(package: ModuleType) -> ModuleType:
    return import_module(f"{package.__name__}.models")


def make_body(package: ModuleType, kind: str, url: str) -> object:
    """Put the photo into one of the bodies that the document describes."""
    models = import_module(f"{package.__name__}.models")
    file = import_module(f"{package.__name__}.types").File(payload=BytesIO(CHELSEA.read_bytes()))
    match kind:
        case "data":
            return models.AnalyzeImageJson(image_data=base64.b64encode(CHELSEA.read_bytes()).decode())
        case "url":
            return models.AnalyzeImageJson(image_url=url)
        case "form":
            return models.AnalyzeImageForm(file=file, top_k=3, priority=models.Priority.HIGH)
        case "form with a url":
            return models.AnalyzeImageForm(image_url=url)
        case _:
            return file


@pytest.mark.parametrize("kind", ["data", "url", "form", "form with a url", "file"])
def test_image_gets_its_label_and_is_answered_from_the_cache(
    package: ModuleType, models: ModuleType, call: Operation, httpserver: HTTPServer, kind: str
) -> None:
    httpserver.expect_request("/cat.png").respond_with_data(CHELSEA.read_bytes())
    url = httpserver.url_for("/cat.png")

    accepted = call("analyze_image", body=make_body(package, kind, url))
    job_id = accepted.parsed.job_id

    def ended() -> Any:
        status = call("read_analysis_status", job_id).parsed
        return status if status.status is models.JobStatus.COMPLETED else None

    status = wait_until(ended, "the job is COMPLETED")
    again = call("analyze_image", body=make_body(package, kind, url))

    assert (accepted.status_code, type(accepted.parsed)) == (202, models.JobAccepted)
    assert (type(status), type(status.result), status.cached) == (models.AnalysisStatus, models.AnalysisResult, False)
    assert (status.result.label, status.result.model.id) == ("cat", "vit-tiny-cifar10")
    assert len(status.result.predictions) == (3 if kind == "form" else 5)
    assert (again.status_code, type(again.parsed)) == (200, models.AnalysisStatus)
    assert (again.parsed.result, again.parsed.cached) == (status.result, True)


@pytest.mark.parametrize("kind", ["form", "JSON"])
def test_batch_is_typed(package: ModuleType, models: ModuleType, call: Operation, kind: str) -> None:
    photo = CHELSEA.read_bytes()
    file = import_module(f"{package.__name__}.types").File
    texts = [models.ImageSource(image_data=base64.b64encode(image).decode()) for image in (photo, b"none")]
    files = [file(payload=BytesIO(image), file_name="image") for image in (photo, b"none")]
    body = models.AnalyzeImagesForm(file=files) if kind == "form" else models.AnalyzeImagesJson(images=texts)
    accepted = call("analyze_images", body=body)

    def ended() -> Any:
        batch = call("read_batch_status", accepted.parsed.batch_id).parsed
        return batch if batch.counts.completed else None

    good, bad = wait_until(ended, "the image has its label").jobs

    assert (accepted.status_code, type(accepted.parsed)) == (202, models.BatchAccepted)
    assert (good.result.label, bad.error.code) == ("cat", "unsupported_image")


def test_waiting_job_is_cancelled(call: Operation, models: ModuleType, held_worker: Callable[[], None]) -> None:
    body = models.AnalyzeImageJson(image_data=base64.b64encode(make_png(700)).decode())

    cancelled = call("cancel_analysis", call("analyze_image", body=body).parsed.job_id)
    held_worker()

    assert (cancelled.status_code, cancelled.parsed.status) == (200, models.JobStatus.CANCELLED)


def test_models_and_health_are_typed(call: Operation, models: ModuleType) -> None:
    (listed,) = call("list_models").parsed.models

    assert (type(listed), listed.is_default) == (models.ModelStatus, True)
    assert "cat" in call("read_model", listed.id).parsed.labels
    assert call("read_readiness").parsed.model == listed.id


def test_errors_are_typed_problems(call: Operation, models: ModuleType) -> None:
    refused = call("analyze_image", body=models.AnalyzeImageJson(image_data="?"))
    unknown = call("read_analysis_status", "00000000-0000-4000-8000-000000000000")
    keyless = call("list_analyses", status=models.JobStatus.PENDING)

    answers = [refused, unknown, keyless]
    assert {type(answer.parsed) for answer in answers} == {models.Problem}
    assert [(answer.status_code, answer.parsed.code) for answer in answers] == [
        (400, "invalid_base64"),
        (404, "job_not_found"),
        (403, "keys_required"),
    ]
