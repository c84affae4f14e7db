"""The option `embedding`, from the Python client and the command line to the API's reader of forms, and its answer."""

import json
import struct
from array import array
from pathlib import Path
from typing import Any

import httpx
import pytest

from image_analysis_api.intake.multipart import FormReader
from image_analysis_api.intake.schemas import FormFields
from image_analysis_api.intake.submissions import parse_fields
from image_analysis_client import AsyncClient, Client
from support.fake_service import RESULT, URL, FakeService, Run, problem

EMBEDDING = {"dimension": 2, "values": "mpkZP83MTL8="}
VECTOR = array("f", [0.6, -0.8])


def asks(request: httpx.Request) -> bool | None:
    """Read the option of a form as the API does."""
    reader = FormReader(request.headers["Content-Type"], max_files=64)
    reader.write(request.content)
    return parse_fields(FormFields, reader.close().fields).embedding


@pytest.fixture
def embedding(service: FakeService) -> None:
    service.result = RESULT | {"embedding": EMBEDDING}


@pytest.mark.usefixtures("embedding")
def test_result_has_the_vector(service: FakeService) -> None:
    with Client(URL) as client:
        one = client.classify(b"image", embedding=True)
        job = client.submit(b"image", embedding=True)
        [many] = client.classify_many([b"image"], embedding=True)
        results = [one, job.wait(), many.result]

    for result in results:
        assert result is not None
        assert result.embedding is not None
        assert result.embedding.vector == VECTOR
    assert [asks(form) for form in service.forms] == [True] * 3


@pytest.mark.anyio
@pytest.mark.usefixtures("embedding")
async def test_asynchronous_client_asks_alike(service: FakeService) -> None:
    async with AsyncClient(URL) as client:
        result = await client.classify(b"image", embedding=True)

    assert result.embedding is not None
    assert result.embedding.vector == VECTOR
    assert [asks(form) for form in service.forms] == [True]


@pytest.mark.parametrize(("options", "asked"), [({}, None), ({"embedding": False}, False)])
def test_result_without_the_option_has_none(service: FakeService, options: Any, asked: bool | None) -> None:
    with Client(URL) as client:
        assert client.classify(b"image", **options).embedding is None

    assert [asks(form) for form in service.forms] == [asked]


@pytest.mark.usefixtures("embedding")
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_command_line_writes_the_embedding_as_json(service: FakeService, run: Run, photo: Path, form: str) -> None:
    code, said, _ = run("classify", photo, "--embedding", form)

    found = json.loads(said)
    row = found[0] if isinstance(found, list) else found
    assert (code, row["result"]["embedding"]) == (0, EMBEDDING)
    assert [asks(form) for form in service.forms] == [True]


def test_command_line_asks_for_none_by_itself(service: FakeService, run: Run, photo: Path) -> None:
    code, said, _ = run("classify", photo)

    assert (code, "embedding" in said) == (0, False)
    assert [asks(form) for form in service.forms] == [None]


def test_command_to_go_on_asks_for_the_embeddings_again(
    service: FakeService, run: Run, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    service.fail("POST", "analyze-images", problem(500, "internal_error"))

    _, _, said = run("classify", photo, "--embedding", "--resume", out)

    assert f"To go on: image-analysis classify --embedding --resume {out} {photo}\n" in said


def test_model_without_embeddings_is_wrong_usage(service: FakeService, run: Run, photo: Path) -> None:
    service.fail("POST", "analyze-images", problem(400, "embeddings_not_supported"))

    code, _, said = run("classify", photo, "--embedding")

    assert (code, said) == (2, "image-analysis: The detail of embeddings_not_supported.\n")


def test_vector_is_little_endian_on_every_machine(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.result = RESULT | {"embedding": EMBEDDING}
    with Client(URL) as client:
        embedding = client.classify(b"image", embedding=True).embedding
    assert embedding is not None

    monkeypatch.setattr("sys.byteorder", "big")

    assert struct.unpack(">2f", embedding.vector.tobytes()) == pytest.approx((0.6, -0.8))


def test_damaged_values_are_a_value_error(service: FakeService) -> None:
    service.result = RESULT | {"embedding": EMBEDDING | {"values": "?"}}

    with Client(URL) as client:
        embedding = client.classify(b"image", embedding=True).embedding

    assert embedding is not None
    with pytest.raises(ValueError, match="base64"):
        _ = embedding.vector
