"""Paths that the API names are right behind a proxy that strips a prefix."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from structlog.testing import capture_logs

from image_analysis_api.settings import ApiSettings
from image_analysis_common.startup import StartupError
from support.fakes import MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

PEER = "198.51.100.7"
PREFIX = "/images/v1"
BY_SETTING: dict[str, Any] = {"root_path": f"{PREFIX}/"}
BY_HEADER: dict[str, Any] = {"trusted_proxies": PEER}
HEADER = {"X-Forwarded-Prefix": PREFIX}


@pytest.fixture(params=[BY_SETTING, BY_HEADER], ids=["ROOT_PATH", "X-Forwarded-Prefix"])
async def proxied(request: pytest.FixtureRequest, make_client: MakeClient) -> httpx.AsyncClient:
    """A client of the API behind the proxy; its paths are those after the proxy."""
    client = await make_client(**request.param)
    client.headers.update({} if "root_path" in request.param else HEADER)
    return client


async def test_accepted_job_and_batch_name_the_paths_of_the_client(proxied: httpx.AsyncClient) -> None:
    job = await proxied.post("/analyze-image", json=base64_body(make_png()))
    batch = await proxied.post("/analyze-images", json={"images": [base64_body(make_png(1))]})

    location = f"{PREFIX}/analysis-status/{job.json()['job_id']}"
    assert job.headers["location"] == location
    assert job.headers["link"] == f'<{location}>; rel="status", <{location}/events>; rel="monitor"'
    assert job.json()["message"].startswith(f"Accepted. Ask GET {location} for")
    location = f"{PREFIX}/analysis-batches/{batch.json()['batch_id']}"
    assert batch.headers["location"] == location
    assert batch.json()["message"].startswith(f"Accepted. Ask GET {location} for")


@pytest.mark.parametrize("path", ["/nowhere", "/page/nothing.js", "/static-offline-docs/nothing", "/nowhere/"])
async def test_unknown_path_leads_to_the_documentation(proxied: httpx.AsyncClient, path: str) -> None:
    answer = await proxied.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.json()["detail"].endswith(f"see {PREFIX}/docs.")


async def test_other_method_leads_to_the_documentation(proxied: httpx.AsyncClient) -> None:
    answer = await proxied.put("/analyze-image")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["detail"].endswith(f"see {PREFIX}/docs.")


async def test_documents_load_their_files_under_the_prefix(proxied: httpx.AsyncClient) -> None:
    assert (await proxied.get("/openapi.json")).json()["servers"] == [{"url": PREFIX}]
    for path in ("/docs", "/redoc"):
        page = (await proxied.get(path)).text
        files = [part.split('"')[0] for part in page.split(f'"{PREFIX}/static')[1:]]

        assert files
        assert f"{PREFIX}/openapi.json" in page
        assert '"/static' not in page
        assert [(await proxied.get(f"/static{file}")).status_code for file in files] == [200] * len(files)


async def test_path_that_begins_with_the_prefix_keeps_it(make_client: MakeClient) -> None:
    client = await make_client(root_path="/models")

    answer = await client.get("/models/models")

    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


async def test_health_calls_stay_out_of_the_log(proxied: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        await proxied.get("/health")
        await proxied.get(f"/analysis-status/{UUID(int=0)}")

    ended = [(line["log_level"], line["path"]) for line in logs if line["event"] == "request_ended"]
    assert ended == [("debug", "/health"), ("info", f"/analysis-status/{UUID(int=0)}")]


@pytest.mark.parametrize("settings", [{}, {"trusted_proxies": "198.51.100.8"}, {"root_path": "/own"}])
async def test_prefix_of_a_stranger_is_ignored(make_client: MakeClient, settings: dict[str, Any]) -> None:
    client = await make_client(**settings)

    answer = await client.post("/analyze-image", json=base64_body(make_png()), headers=HEADER)

    assert answer.headers["location"].startswith(f"{settings.get('root_path', '')}/analysis-status/")


@pytest.mark.parametrize(
    "prefix", ["", "/", "images", "//evil.example", "/a//b", "/../x", "/a b", "/é", "/a,/b", "/x" * 17]
)
async def test_malformed_prefix_is_ignored(make_client: MakeClient, prefix: str) -> None:
    client = await make_client(trusted_proxies=PEER, root_path="/own")

    headers = [("X-Forwarded-Prefix", prefix.encode())]
    answer = await client.post("/analyze-image", json=base64_body(make_png()), headers=headers)  # type: ignore[arg-type]

    assert answer.headers["location"].startswith("/own/analysis-status/")


@pytest.mark.parametrize("path", ["images", "//x", "/a b", "/../x", "/"])
def test_root_path_that_is_no_prefix_stops_the_start(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("ROOT_PATH", path)

    with pytest.raises(StartupError, match=r"ROOT_PATH: .* is not the prefix of a path: write it like /images"):
        ApiSettings.from_environment()
