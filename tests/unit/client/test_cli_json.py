"""The JSON of single answers: exact and in UTF-8, whatever the encoding of the environment is."""

import io
import json
import sys
from pathlib import Path

import httpx
import pytest

from image_analysis_client.cli import main
from support.fake_service import FakeService, make_classifier

JOB_ID = "00000000-0000-0000-0000-000000000001"
LABEL = "caf\u00e9 \u732b"
CLASSIFIER = make_classifier("pets", {LABEL: 5, "dog": 5})
TRAINED = {"job_id": JOB_ID, "status": "COMPLETED", "classifier": CLASSIFIER}
SERVED = {
    "id": LABEL,
    "is_default": True,
    "revision": "1",
    "task": "image-classification",
    "labels_count": 10,
    "accuracy": None,
    "backend": "torch",
    "device": "cpu",
    "precision": "float32",
    "max_batch_size": 8,
    "inference_ms": 1.0,
    "embeds": True,
    "trains": True,
    "workers": 1,
    "queue_depth": 0,
}
COMMANDS = pytest.mark.parametrize(
    "arguments", [["status", JOB_ID], ["watch", JOB_ID], ["models"], ["classifiers"], ["teach", "pets", "{folder}"]]
)


class Output(io.TextIOWrapper):
    """Standard output in an encoding, as a terminal or not."""

    def __init__(self, encoding: str, *, is_terminal: bool) -> None:
        self.content = io.BytesIO()
        super().__init__(self.content, encoding=encoding)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, label in enumerate((LABEL, "dog")):
        (tmp_path / label).mkdir()
        for image in range(5):
            (tmp_path / label / f"{image}.png").write_bytes(b"%d %d" % (number, image))
    return tmp_path


@pytest.fixture
def answering(service: FakeService) -> FakeService:
    """A service that knows a classifier and a model with such a name."""
    models = httpx.Response(200, json={"models": [SERVED]})
    event = f"id: 0\ndata: {json.dumps(TRAINED)}\n\n"

    def follow(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=event)
        return httpx.Response(200, json=TRAINED)

    service.classifiers["pets"] = CLASSIFIER
    service.fail("GET", "models", models)
    service.fail("GET", "analysis-status", follow)
    return service


def write(monkeypatch: pytest.MonkeyPatch, output: Output, *arguments: str) -> bytes:
    with monkeypatch.context() as patches:
        patches.setattr(sys, "stdout", output)
        patches.setenv("TERM", "dumb")
        with pytest.raises(SystemExit) as ended:
            main(arguments)
    assert ended.value.code == 0
    output.flush()
    return output.content.getvalue()


@COMMANDS
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_json_is_exact_in_every_encoding(
    answering: FakeService,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    encoding: str,
    *,
    is_terminal: bool,
) -> None:
    output = Output(encoding, is_terminal=is_terminal)
    command = [argument.format(folder=folder) for argument in arguments]

    written = write(monkeypatch, output, *command, *(["--json"] if is_terminal else []))

    text = written.decode(encoding if is_terminal else "utf-8")
    assert LABEL in str(json.loads(text))
    assert (LABEL in text) == (encoding == "utf-8" or not is_terminal)
