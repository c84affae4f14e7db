"""The headers of every answer, and the CORS headers."""

import httpx
import pytest
from fakeredis import FakeServer

from image_analysis_api.settings import ApiSettings
from image_analysis_common.startup import StartupError
from support.fakes import FakeFetcher, MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

ORIGIN = "https://app.example"
EXPOSED = {"link", "location", "preference-applied", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id"}


@pytest.fixture
async def answers(make_client: MakeClient, fetcher: FakeFetcher, redis_server: FakeServer) -> list[httpx.Response]:
    """One answer of every kind, as a page from `ORIGIN` gets it; CORS is on."""
    client = await make_client(cors_allow_origins=f"{ORIGIN}, http://localhost:3000", rate_limit_max_requests=3)
    client.headers["Origin"] = ORIGIN
    fetcher.answers["http://x.example/"] = RuntimeError("a fault of ours")
    answers = [
        await client.get("/health"),
        await client.get("/openapi.json"),
        await client.get("/nowhere"),
        await client.put("/analyze-image"),
        await client.post("/analyze-image", json=base64_body(make_png())),
        await client.post("/analyze-image", content=b" " * 14_000_000),
        await client.post("/analyze-image", json={"image_url": "http://x.example/"}),
        await client.post("/analyze-image"),
    ]
    redis_server.connected = False
    answers.append(await client.post("/analyze-image"))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 405, 202, 413, 500, 429, 503]
    return answers


async def test_no_answer_is_stored_sniffed_or_framed(answers: list[httpx.Response]) -> None:
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"


async def test_allowed_origin_may_read_every_answer_with_its_headers(answers: list[httpx.Response]) -> None:
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert set(answer.headers["access-control-expose-headers"].lower().split(", ")) == EXPOSED
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["vary"] == "Origin"


async def test_allowed_origin_may_send_json_and_a_key(make_client: MakeClient) -> None:
    client = await make_client(cors_allow_origins=ORIGIN)

    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    by_bearer = await client.options("/analyze-image", headers={"Origin": ORIGIN, **asked})
    asked["Access-Control-Request-Headers"] = "x-api-key, x-request-id"
    by_header = await client.options("/analyze-image", headers={"Origin": ORIGIN, **asked})

    assert [answer.status_code for answer in (by_bearer, by_header)] == [200, 200]
    assert by_bearer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in by_bearer.headers["access-control-allow-methods"]


async def test_any_other_origin_may_read_nothing(make_client: MakeClient) -> None:
    client = await make_client(cors_allow_origins=ORIGIN)

    answers = [
        await client.request(method, "/health", headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
        for method in ("GET", "OPTIONS")
        for origin in ("https://evil.example", f"{ORIGIN}.evil.example", "http://app.example", "null")
    ]

    assert all("access-control-allow-origin" not in answer.headers for answer in answers)


async def test_star_allows_every_origin_and_none_with_credentials(make_client: MakeClient) -> None:
    client = await make_client(cors_allow_origins="*")

    answer = await client.get("/health", headers={"Origin": ORIGIN, "Cookie": "session=1"})

    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_no_origin_is_allowed_by_default(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health", headers={"Origin": ORIGIN})
    preflight = await client.options(
        "/analyze-image", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    )

    assert (answer.status_code, preflight.status_code) == (200, 405)
    assert not [name for name in [*answer.headers, *preflight.headers] if name.startswith("access-control-")]


@pytest.mark.parametrize("origins", ["app.example", f"{ORIGIN}/", f"{ORIGIN}/page", "https://App.example", "*, x"])
def test_origin_that_could_never_match_stops_the_start(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", origins)

    with pytest.raises(
        StartupError, match=r"CORS_ALLOW_ORIGINS: .* is not an origin: write it like https://app\.example"
    ):
        ApiSettings.from_environment()
