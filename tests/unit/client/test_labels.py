"""Labels for zero-shot models, from the Python client and the command line to the API's reader of forms."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from image_analysis_api.intake.multipart import FormReader
from image_analysis_api.intake.schemas import FormFields, Options
from image_analysis_api.intake.submissions import parse_fields
from image_analysis_client import AsyncClient, BadRequest, Client
from image_analysis_common.models import DEFAULT_TEMPLATE, ZERO_SHOT
from support.fake_service import URL, FakeService, Run, problem

LABELS = ["a cat", "red, green", "größe 🐕", "=1+1", '"', "--json"]
CLASSIFY = ("POST", "analyze-images")
MODEL = {
    "id": "clip",
    "is_default": False,
    "revision": "1",
    "labels_count": 0,
    "accuracy": None,
    "backend": "torch",
    "device": "cpu",
    "precision": "float32",
    "max_batch_size": 1,
    "inference_ms": 1,
    "workers": 1,
    "queue_depth": 0,
}


def read_options(request: httpx.Request) -> Options:
    """Read a form as the API does."""
    reader = FormReader(request.headers["Content-Type"], max_files=64)
    reader.write(request.content)
    return parse_fields(FormFields, reader.close().fields)


def asked(service: FakeService) -> list[tuple[list[str], str]]:
    """The labels and the template of each submission."""
    questions = [read_options(form).question for form in service.forms]
    return [(list(question.labels), question.hypothesis_template) for question in questions if question]


@pytest.mark.parametrize("labels", [LABELS, tuple(LABELS), ["cat"], ["red, green"], [f"{n}" for n in range(200)]])
def test_labels_arrive_as_they_are(service: FakeService, labels: Any) -> None:
    with Client(URL) as client:
        client.classify(b"image", labels=labels, hypothesis_template="A sketch of {}.")
        client.submit(b"image", labels=labels)
        list(client.classify_many([b"image", b"other"], labels=labels))

    assert asked(service) == [
        (list(labels), "A sketch of {}."),
        (list(labels), DEFAULT_TEMPLATE),
        (list(labels), DEFAULT_TEMPLATE),
    ]


@pytest.mark.anyio
async def test_asynchronous_client_sends_labels_alike(service: FakeService) -> None:
    async with AsyncClient(URL) as client:
        await client.classify(b"image", labels=LABELS)
        outcomes = [outcome async for outcome in client.classify_many([b"image"], labels=LABELS)]

    assert asked(service) == [(LABELS, DEFAULT_TEMPLATE)] * 2
    assert [outcome.error for outcome in outcomes] == [None]


def test_labels_that_the_service_refuses_are_an_error(service: FakeService) -> None:
    service.fail("POST", "analyze-image", problem(400, "labels_required"))

    with Client(URL) as client, pytest.raises(BadRequest) as refused:
        client.classify(b"image")

    assert refused.value.code == "labels_required"


@pytest.mark.parametrize("task", [{}, {"task": "image-classification"}, {"task": ZERO_SHOT}])
def test_models_have_their_task(service: FakeService, task: dict[str, str]) -> None:
    service.fail("GET", "models", httpx.Response(200, json={"models": [MODEL | task]}))

    with Client(URL) as client:
        [model] = client.models()

    assert model.task == task.get("task", "image-classification")


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (["--labels", "a cat,a dog"], ["a cat", "a dog"]),
        (["--labels", "a cat, a dog, größe 🐕"], ["a cat", "a dog", "größe 🐕"]),
        (["--labels", "cat"], ["cat"]),
        (["--labels", "red, green", "--labels", "--json"], ["red, green", "--json"]),
    ],
)
def test_command_line_sends_labels(
    service: FakeService, run: Run, photo: Path, arguments: list[str], labels: list[str]
) -> None:
    code, _, _ = run("classify", photo, *arguments, "--template", "A sketch of {}.")

    assert (code, asked(service)) == (0, [(labels, "A sketch of {}.")])


def test_command_to_go_on_asks_the_same_question(service: FakeService, run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    service.fail(*CLASSIFY, problem(500, "internal_error"))

    _, _, said = run("classify", photo, "--labels", "a cat,it's a dog", "--template", "A {}", "--csv", out)

    command = f"""--labels 'a cat' --labels 'it'"'"'s a dog' --template 'A {{}}' --resume {out} {photo}"""
    assert f"To go on: image-analysis classify {command}\n" in said


@pytest.mark.parametrize("code", ["labels_required", "labels_not_supported"])
def test_question_that_does_not_fit_the_model_is_wrong_usage(
    service: FakeService, run: Run, photo: Path, code: str
) -> None:
    service.fail(*CLASSIFY, problem(400, code))

    assert run("classify", photo) == (2, "", f"image-analysis: The detail of {code}.\n")


def test_completion_knows_the_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_IMAGE_ANALYSIS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "image-analysis classify --la")
    monkeypatch.setenv("COMP_CWORD", "2")

    code, said, _ = run()

    assert (code, said.split()) == (0, ["--labels"])
