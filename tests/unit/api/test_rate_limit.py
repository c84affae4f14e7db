"""The rate limit of the API; test_contracts tests that its window is exact."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_api.access.rate_limit import client_address
from image_analysis_api.settings import ApiSettings
from image_analysis_common.logs import configure_logs
from image_analysis_common.startup import StartupError
from support.fakes import MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio
STATUS = "/analysis-status/"


async def test_sixth_request_is_429_and_its_body_is_never_read(make_client: MakeClient, redis: FakeRedis) -> None:
    client = await make_client(rate_limit_max_requests=5)
    allowed = [await client.post("/analyze-image", json=base64_body(make_png(seed))) for seed in range(5)]

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    refused = await client.post("/analyze-image", content=body(), headers={"Content-Type": "application/json"})

    assert [answer.status_code for answer in allowed] == [202] * 5
    quotas = [answer.headers["ratelimit"].rpartition(";t=") for answer in allowed]
    assert [quota for quota, *_ in quotas] == [f'"default";r={left}' for left in (4, 3, 2, 1, 0)]
    assert int(quotas[0][-1]) == 60
    assert all(50 <= int(seconds) <= 60 for *_, seconds in quotas)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"default";q=5;w=60'
    assert refused.headers["ratelimit"].startswith('"default";r=0;t=')
    assert await redis.llen("rate_limit:198.51.100.7") == 5


async def test_bad_requests_count_too(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=1)

    codes = [(await client.post("/analyze-image", content=b"{}")).status_code for _ in range(2)]

    assert codes == [415, 429]


async def test_asking_for_a_job_costs_nothing(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=1)
    job_id = (await client.post("/analyze-image", json=base64_body(make_png()))).json()["job_id"]

    answers = [await client.get(f"/analysis-status/{job_id}") for _ in range(10)]

    assert {(answer.status_code, answer.headers["ratelimit"][:12]) for answer in answers} == {(200, '"default";r=')}
    assert all(answer.headers["ratelimit"].startswith('"default";r=0;t=') for answer in answers)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_client_cannot_choose_its_address(make_client: MakeClient, header: str) -> None:
    client: httpx.AsyncClient = await make_client(rate_limit_max_requests=1)

    codes = [
        (
            await client.post("/analyze-image", json=base64_body(make_png()), headers={header: f"192.0.2.{n}"})
        ).status_code
        for n in range(2)
    ]

    assert codes == [202, 429]


@pytest.fixture
async def uncountable(redis: FakeRedis) -> None:
    """Make every count of the client's requests fail, and nothing else in Redis."""
    await redis.set("rate_limit:198.51.100.7", "no list")


@pytest.mark.usefixtures("uncountable")
async def test_request_that_cannot_be_counted_is_refused_by_default(make_client: MakeClient) -> None:
    client = await make_client()

    answers = [
        await client.post("/analyze-image", json=base64_body(make_png())),
        await client.get(f"{STATUS}{uuid4()}"),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "store_unavailable")] * 2


@pytest.mark.usefixtures("uncountable")
async def test_request_that_cannot_be_counted_is_served_if_the_limit_fails_open(
    make_client: MakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await make_client(rate_limit_fail_open=True, rate_limit_max_requests=1)
    configure_logs(ApiSettings(log_format="json"), "api")

    posts = [await client.post("/analyze-image", json=base64_body(make_png(seed))) for seed in range(3)]
    get = await client.get(posts[0].headers["location"])

    assert [answer.status_code for answer in (*posts, get)] == [202, 202, 202, 200]
    assert all("ratelimit" not in answer.headers for answer in (*posts, get))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["level"] for line in lines if line["event"] == "rate_limit_skipped"] == ["warning"] * 4


@pytest.mark.usefixtures("uncountable")
async def test_wrong_key_that_cannot_be_counted_is_still_wrong(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_fail_open=True, api_keys=f"alice:{'0' * 64}")

    answer = await client.post("/analyze-image", headers={"X-API-Key": "wrong"})

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_limit_that_fails_open_accepts_nothing_while_redis_is_down(
    make_client: MakeClient, redis_server: FakeServer
) -> None:
    client = await make_client(rate_limit_fail_open=True)
    redis_server.connected = False

    answers = [
        await client.post("/analyze-image", json=base64_body(make_png())),
        await client.get(f"{STATUS}{uuid4()}"),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "store_unavailable")] * 2


TRUSTED = "198.51.100.7, 10.0.0.0/8, 2001:db8::/32"
FORWARDED: dict[str, tuple[list[str], str]] = {
    "one hop": (["192.0.2.1"], "192.0.2.1"),
    "a client's own word before the proxy's": (["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
    "a trusted address as a client's own word": (["10.0.0.9, 192.0.2.1"], "192.0.2.1"),
    "hops over trusted proxies": (["203.0.113.9, 192.0.2.1, 10.1.1.1, 10.2.2.2"], "192.0.2.1"),
    "a proxy in between that is not trusted": (["203.0.113.9, 192.0.2.1, 172.16.0.1, 10.2.2.2"], "172.16.0.1"),
    "a line for each hop": (["203.0.113.9", "192.0.2.1", "10.2.2.2"], "192.0.2.1"),
    "a port": (["192.0.2.1:50000"], "192.0.2.1"),
    "IPv6": (["3fff:1:2:3:4:5:6:7"], "3fff:1:2:3::/64"),
    "IPv6 with a port": (["[3fff:1:2:3::1]:443"], "3fff:1:2:3::/64"),
    "IPv4 in IPv6": (["::ffff:192.0.2.1"], "192.0.2.1"),
    "garbage": (["rate_limit:*"], "unknown"),
    "garbage before a hop": (["x" * 9000 + ",192.0.2.1"], "192.0.2.1"),
    "an empty line": ([""], "198.51.100.7"),
    "no line": ([], "198.51.100.7"),
}


@pytest.mark.parametrize("case", FORWARDED)
async def test_trusted_proxy_names_the_client(make_client: MakeClient, redis: FakeRedis, case: str) -> None:
    client = await make_client(trusted_proxies=TRUSTED)
    lines, address = FORWARDED[case]

    await client.post("/analyze-image", headers=[("X-Forwarded-For", line) for line in lines])

    assert await redis.keys() == [f"rate_limit:{address}".encode()]


async def test_proxy_that_is_not_trusted_cannot_name_the_client(make_client: MakeClient, redis: FakeRedis) -> None:
    client = await make_client(trusted_proxies="10.0.0.0/8, 198.51.100.8")

    await client.post("/analyze-image", headers={"X-Forwarded-For": "192.0.2.1, 10.0.0.1"})

    assert await redis.keys() == [b"rate_limit:198.51.100.7"]


@pytest.mark.parametrize("proxies", ["*", "balancer", "10.0.0.0/33", "10.0.0.1/8", "127.0.0.1, *"])
async def test_proxies_that_are_no_networks_stop_the_start(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", proxies)

    with pytest.raises(StartupError, match="TRUSTED_PROXIES"):
        ApiSettings.from_environment()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
async def test_clients_are_counted_by_ipv4_address_or_ipv6_network(host: str | None, address: str) -> None:
    assert client_address(host) == address
