"""The answer to any request is one that the OpenAPI document describes."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from image_analysis_api.app import create_app
from image_analysis_api.outbound.fetcher import Hold
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.responses import AnalysisStatus, JobAccepted, Problem
from image_analysis_api.settings import ApiSettings
from image_analysis_common.errors import FetchFailed
from support.fakes import FakeFetcher
from support.samples import encode, make_image

IMAGES = [encode(make_image(seed), form) for seed, form in enumerate(("PNG", "JPEG", "GIF", "WEBP", "BMP"))]
EXAMPLES = 100


class UnreachableHosts(FakeFetcher):
    """Parses a URL as the real fetcher does, and then fails."""

    async def fetch(self, url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        WebUrl.parse(url)
        raise FetchFailed("The host cannot be reached.")


class Service:
    """One app for many requests, on a separate event loop, because Hypothesis's functions are not coroutines."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.app: FastAPI = self._runner.run(self._make())
        self.statuses = {
            (method.upper(), path): set(map(int, operation["responses"]))
            for path, operations in self.app.openapi()["paths"].items()
            for method, operation in operations.items()
        }

    async def _make(self) -> FastAPI:
        settings = ApiSettings(rate_limit_max_requests=10**9, max_image_bytes=20_000, max_image_pixels=10_000)
        return create_app(settings, redis=FakeRedis(), fetcher=UnreachableHosts())

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._ask(method, path, **options))

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    def close(self) -> None:
        self._runner.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def check(answer: httpx.Response, documented: set[int]) -> None:
    assert answer.status_code in documented - {500, 503}
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = Problem.model_validate_json(answer.content, strict=True)
        assert (problem.status, problem.request_id) == (answer.status_code, answer.headers["x-request-id"])
    else:
        (JobAccepted if answer.status_code == 202 else AnalysisStatus).model_validate_json(answer.content)


def submit(service: Service, body: bytes, content_type: str = "application/json") -> None:
    answer = service.ask("POST", "/analyze-image", content=body, headers={"Content-Type": content_type})
    check(answer, service.statuses["POST", "/analyze-image"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["image_data", "image_url"]) | st.text(), inner),
    max_leaves=8,
)
DAMAGED = st.builds(
    lambda image, at, piece: image[: int(at * len(image))] + piece + image[int(at * len(image)) + len(piece) :],
    st.sampled_from(IMAGES),
    st.floats(0, 1),
    st.binary(max_size=64),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(body=st.binary(max_size=2000), content_type=st.sampled_from(["application/json", "text/plain", ""]))
def test_any_bytes_get_a_documented_answer(service: Service, body: bytes, content_type: str) -> None:
    submit(service, body, content_type)


@settings(max_examples=EXAMPLES, deadline=None)
@given(document=JSON)
def test_any_json_gets_a_documented_answer(service: Service, document: object) -> None:
    submit(service, json.dumps(document).encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(image=st.binary(max_size=500) | DAMAGED)
def test_any_image_gets_a_documented_answer(service: Service, image: bytes) -> None:
    submit(service, json.dumps({"image_data": base64.b64encode(image).decode()}).encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(text=st.text(max_size=300) | st.from_regex(r"https?://[^ ]{1,60}", fullmatch=True))
def test_any_text_as_source_gets_a_documented_answer(service: Service, text: str) -> None:
    submit(service, json.dumps({"image_data": text}).encode())
    submit(service, json.dumps({"image_url": text}).encode())


@settings(max_examples=EXAMPLES, deadline=None)
@given(job_id=st.text(min_size=1, max_size=80))
def test_any_job_id_gets_a_documented_answer(service: Service, job_id: str) -> None:
    answer = service.ask("GET", f"/analysis-status/{quote(job_id, safe='')}")
    check(answer, service.statuses["GET", "/analysis-status/{job_id}"])
