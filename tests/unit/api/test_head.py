"""HEAD is answered wherever GET is, except on streams."""

import re
from typing import Any
from uuid import UUID

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from support.announcements import MODEL, announce
from support.fakes import MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

OPEN = ["/", "/page/index.html", "/health", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json"]
CHANGING = {"x-request-id", "date", "retry-after"}


def headers(answer: httpx.Response) -> dict[str, str]:
    """Return the headers that must be equal; of `RateLimit`, without the seconds that are left of the window."""
    kept = {name: value for name, value in answer.headers.items() if name not in CHANGING}
    return kept | {"ratelimit": re.sub(r";t=\d+$", "", kept.get("ratelimit", ""))}


async def test_head_has_status_and_headers_of_get(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis)
    job = (await client.post("/analyze-image", json=base64_body(make_png()))).headers["location"]
    sent = {"images": [base64_body(make_png(1))]}
    batch = (await client.post("/analyze-images", json=sent)).headers["location"]
    unknown = f"/analysis-status/{UUID(int=0)}"

    for path in [*OPEN, "/models", f"/models/{MODEL.id}", "/analyses", job, batch, unknown, "/models/unknown"]:
        got, asked = await client.get(path), await client.head(path)

        assert (asked.status_code, headers(asked)) == (got.status_code, headers(got)), path


async def test_stream_has_no_head(client: httpx.AsyncClient) -> None:
    answer = await client.head(f"/analysis-status/{UUID(int=0)}/events")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_allow_names_head_where_it_is_answered(client: httpx.AsyncClient) -> None:
    answer = await client.put("/models")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_document_lists_no_head(app: FastAPI) -> None:
    document: dict[str, Any] = app.openapi()

    assert [path for path, operations in document["paths"].items() if "head" in operations] == []


async def test_page_may_ask_head_with_a_key(make_client: MakeClient) -> None:
    client = await make_client(cors_allow_origins="https://app.example")
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "HEAD"}

    answer = await client.options("/models", headers=asked | {"Access-Control-Request-Headers": "x-api-key"})

    assert answer.status_code == 200
