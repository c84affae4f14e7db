"""Two API processes on one Redis share their limits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from threading import Barrier

import httpx
import pytest
from redis import Redis

from support.api_processes import two_apis
from support.samples import base64_body, make_png

REQUESTS, CLIENTS, LIMIT = 500, 50, 5
ENTRIES = ",".join(f"{owner}:{sha256(owner.encode()).hexdigest()}" for owner in ("alice", "bob"))
PROXY = "127.0.0.9"


@pytest.fixture(scope="module")
def open_apis(redis_url: str) -> Iterator[tuple[str, str]]:
    with two_apis(redis_url, TRUSTED_PROXIES=PROXY) as urls:
        yield urls


@pytest.fixture(scope="module")
def guarded_apis(redis_url: str) -> Iterator[tuple[str, str]]:
    with two_apis(redis_url, TRUSTED_PROXIES=PROXY, API_KEYS=ENTRIES) as urls:
        yield urls


def storm(urls: Sequence[str], addresses: Sequence[str], headers: Sequence[dict[str, str]]) -> Counter[int]:
    """Send `REQUESTS` submissions over `CLIENTS` connections at once, with the addresses and the headers in turn."""
    start = Barrier(CLIENTS)
    bodies = [base64_body(make_png(seed)) for seed in range(REQUESTS // CLIENTS)]

    def submit(number: int) -> list[int]:
        transport = httpx.HTTPTransport(local_address=addresses[number % len(addresses)])
        with httpx.Client(base_url=urls[number * len(urls) // CLIENTS], transport=transport) as client:
            start.wait()
            sent = headers[number % len(headers)]
            return [client.post("/analyze-image", json=body, headers=sent).status_code for body in bodies]

    with ThreadPoolExecutor(CLIENTS) as threads:
        codes = Counter(code for codes in threads.map(submit, range(CLIENTS)) for code in codes)
    # If another test's worker still runs, it may finish the image before the next client sends it.
    codes[202] += codes.pop(200, 0)
    return codes


def test_five_of_five_hundred_requests_at_once_pass(open_apis: tuple[str, str], redis: Redis) -> None:
    codes = storm(open_apis, ["127.0.0.1"], [{}])

    assert codes == {202: LIMIT, 429: REQUESTS - LIMIT}
    assert redis.llen("rate_limit:127.0.0.1") == LIMIT


def test_client_that_forges_its_address_is_counted_as_one(open_apis: tuple[str, str], redis: Redis) -> None:
    spoofed = [{"X-Forwarded-For": f"192.0.2.{n}, {PROXY}", "X-Real-IP": f"192.0.2.{n}"} for n in range(CLIENTS)]

    codes = storm(open_apis, ["127.0.0.2"], spoofed)

    assert codes == {202: LIMIT, 429: REQUESTS - LIMIT}
    assert redis.keys("rate_limit:*") == [b"rate_limit:127.0.0.2"]


def test_clients_behind_a_trusted_proxy_are_counted_separately(open_apis: tuple[str, str], redis: Redis) -> None:
    forwarded = [{"X-Forwarded-For": f"203.0.113.{n}, {client}"} for n, client in enumerate(["192.0.2.1", "3fff::1"])]

    codes = storm(open_apis, [PROXY], forwarded)

    assert codes == {202: 2 * LIMIT, 429: REQUESTS - 2 * LIMIT}
    assert set(redis.keys("rate_limit:*")) == {b"rate_limit:192.0.2.1", b"rate_limit:3fff::/64"}


def test_key_has_one_quota_over_all_addresses_and_processes(guarded_apis: tuple[str, str], redis: Redis) -> None:
    sent = [{"Authorization": "Bearer alice"}, {"X-API-Key": "bob"}, {"X-API-Key": "alice"}, {"X-API-Key": "mallory"}]

    codes = storm(guarded_apis, [f"127.0.0.{n}" for n in (1, 2, 3)], sent)

    # Three addresses use up their quota with wrong keys, which does not lock out either owner.
    assert codes == {202: 2 * LIMIT, 401: 3 * LIMIT, 429: REQUESTS - 5 * LIMIT}
    owners = {redis.hget(key, "owner") for key in redis.scan_iter("analysis_job:*")}
    assert owners == {b"alice", b"bob"}


def test_no_answer_names_the_server(open_apis: tuple[str, str]) -> None:
    paths = ["/health", "/docs", "/nowhere", "/analyze-image"]

    answers = [httpx.get(f"{open_apis[0]}{path}", trust_env=False) for path in paths]

    assert [answer.status_code for answer in answers] == [200, 200, 404, 405]
    assert all({"server", "x-powered-by"}.isdisjoint(answer.headers) for answer in answers)
