"""What all answers have in common: IDs, problem documents, log lines; and the OpenAPI document that describes it."""

import json
import re
from typing import Any

import httpx
import pytest
from fakeredis import FakeServer

from image_analysis_api.settings import ApiSettings
from image_analysis_common.logs import configure_logs
from support.fakes import FakeFetcher, MakeApp, MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("request_id", ["order-7", "a" * 128, "Root=1-67891233-abcdef"])
async def test_request_id_is_taken_from_the_client(client: httpx.AsyncClient, request_id: str) -> None:
    answer = await client.get("/nowhere", headers={"X-Request-ID": request_id})

    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == (request_id, request_id)


@pytest.mark.parametrize("request_id", ["", "a" * 129, "a b", 'a"b', "a\\nb", "<script>"])
async def test_request_id_that_could_forge_a_log_line_is_replaced(client: httpx.AsyncClient, request_id: str) -> None:
    answer = await client.get("/health", headers={"X-Request-ID": request_id})

    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"] != request_id


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("PUT", "/analyze-image", 405, "method_not_allowed")],
)
async def test_unknown_path_and_method_are_problems(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)

    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_crash_shows_the_client_nothing_and_the_log_everything(
    client: httpx.AsyncClient, fetcher: FakeFetcher, capsys: pytest.CaptureFixture[str]
) -> None:
    fetcher.answers["http://x.example/"] = RuntimeError("redis://:secret@10.0.0.1")
    configure_logs(ApiSettings(log_format="json"), "api")

    answer = await client.post("/analyze-image", json={"image_url": "http://x.example/"})

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    crash = next(
        line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["event"] == "request_crashed"
    )
    assert crash["request_id"] == answer.headers["x-request-id"]
    assert "RuntimeError" in crash["exception"]
    assert "http://x.example/" not in crash["exception"]  # a local variable of ours


async def test_log_lines_carry_the_ids_and_never_the_content(
    client: httpx.AsyncClient, fetcher: FakeFetcher, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(ApiSettings(log_format="json"), "api")
    body = base64_body(make_png())
    fetcher.answers["https://user.example/cat.png?token=t0ps3cret"] = make_png()

    await client.post("/analyze-image?key=t0ps3cret", json=body, headers={"X-Request-ID": "order-7"})
    await client.post("/analyze-image", json={"image_url": "https://user.example/cat.png?token=t0ps3cret"})

    output = capsys.readouterr().out
    lines = [json.loads(line) for line in output.splitlines()]
    ours = [line for line in lines if line.get("request_id") == "order-7"]
    assert [line["event"] for line in ours] == ["job_enqueued", "request_ended"]
    assert ours[0]["job_id"] == ours[1]["job_id"]
    assert {line["service"] for line in lines} == {"api"}
    assert (ours[1]["method"], ours[1]["path"], ours[1]["status"]) == ("POST", "/analyze-image", 202)
    assert "t0ps3cret" not in output
    assert body["image_data"][:40] not in output


@pytest.fixture
def document(make_app: MakeApp) -> dict[str, Any]:
    return make_app().openapi()


TRAINING = [202, 400, 403, 404, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503]


async def test_document_lists_every_status_of_the_contract(document: dict[str, Any]) -> None:
    statuses = {
        (method, path): sorted(map(int, operation["responses"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }

    assert statuses == {
        ("post", "/analyze-image"): [200, 202, 400, 403, 404, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503],
        ("post", "/analyze-images"): [200, 202, 400, 403, 404, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503],
        ("get", "/analysis-batches/{batch_id}"): [200, 400, 404, 414, 431, 500, 503],
        ("put", "/classifiers/{name}"): TRAINING,
        ("post", "/classifiers/{name}/examples"): TRAINING,
        ("get", "/classifiers"): [200, 414, 431, 500, 503],
        ("get", "/classifiers/{name}"): [200, 400, 404, 414, 431, 500, 503],
        ("delete", "/classifiers/{name}"): [204, 400, 404, 414, 431, 500, 503],
        ("get", "/models"): [200, 414, 431, 500, 503],
        ("get", "/models/{model_id}"): [200, 404, 414, 431, 500, 503],
        ("post", "/models/{model_id}"): [200, 400, 404, 408, 409, 413, 414, 415, 422, 429, 431, 500, 503],
        ("get", "/analysis-status/{job_id}"): [200, 400, 404, 414, 431, 500, 503],
        ("get", "/analysis-status/{job_id}/events"): [200, 204, 400, 404, 414, 431, 500, 503],
        ("delete", "/analysis/{job_id}"): [200, 202, 204, 400, 404, 414, 431, 500, 503],
        ("get", "/analyses"): [200, 400, 403, 414, 431, 500, 503],
        ("get", "/health"): [200, 414, 431, 500],
        ("get", "/health/live"): [200, 414, 431, 500],
        ("get", "/health/ready"): [200, 414, 431, 500, 503],
    }
    assert {"HTTPValidationError", "ValidationError"}.isdisjoint(document["components"]["schemas"])


async def test_document_describes_every_error_as_a_problem_with_examples(document: dict[str, Any]) -> None:
    errors = [
        (int(status), response)
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]

    for status, response in errors:
        assert list(response["content"]) == ["application/problem+json"]
        content = response["content"]["application/problem+json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert {example["value"]["status"] for example in content["examples"].values()} == {status}
        assert all(example["value"]["code"] == code for code, example in content["examples"].items())
        assert "X-Request-ID" in response["headers"]
        assert ("Retry-After" in response["headers"]) == (status in (429, 503))


async def test_document_repeats_every_list_of_texts_in_a_form(document: dict[str, Any]) -> None:
    """OpenAPI Generator joins the items of a list with commas where the document says nothing."""
    content = document["paths"]["/analyze-images"]["post"]["requestBody"]["content"]["multipart/form-data"]
    fields = document["components"]["schemas"]["AnalyzeImagesForm"]["properties"]
    lists = {name for name, schema in fields.items() if schema.get("type") == "array"}
    files = {name for name in lists if fields[name]["items"].get("format") == "binary"}

    assert files == {"file"}
    assert content["encoding"] == {name: {"style": "form", "explode": True} for name in lists - files}


JSON_OR_FORM = ["application/json", "multipart/form-data"]


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        ("/analyze-image", [*JSON_OR_FORM, "image/*", "application/octet-stream"]),
        ("/analyze-images", JSON_OR_FORM),
    ],
)
async def test_documents_example_of_an_unsupported_body_is_the_answer_to_one(
    client: httpx.AsyncClient, document: dict[str, Any], path: str, accepted: list[str]
) -> None:
    content = document["paths"][path]["post"]["responses"]["415"]["content"]["application/problem+json"]

    answer = await client.post(path, content=b"image", headers={"Content-Type": "text/plain"})

    [example] = content["examples"].values()
    assert answer.json()["detail"] == example["value"]["detail"]
    assert re.findall(r"[a-z]+/[a-z*-]+", example["value"]["detail"]) == accepted


async def test_documents_base64_example_works_when_pasted(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    content = document["paths"]["/analyze-image"]["post"]["requestBody"]["content"]["application/json"]

    answer = await client.post("/analyze-image", json=content["examples"]["base64"]["value"])

    assert answer.status_code == 202
    headers = document["paths"]["/analyze-image"]["post"]["responses"]["202"]["headers"]
    assert {name.lower() for name in headers} - {"preference-applied"} <= set(answer.headers)


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
async def test_documentation_is_served_without_redis(
    make_client: MakeClient, redis_server: FakeServer, path: str
) -> None:
    redis_server.connected = False
    client = await make_client(api_title="Cat Finder", api_version="9.9")

    answer = await client.get(path)

    assert answer.status_code == 200
    assert "Cat Finder" in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_loads_nothing_from_another_host(client: httpx.AsyncClient, path: str) -> None:
    page = (await client.get(path)).text

    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    answers = [await client.get(part) for part in parts]
    assert len(parts) > 1
    assert all(part.startswith("/") for part in parts)
    assert [answer.status_code for answer in answers] == [200] * len(parts)
