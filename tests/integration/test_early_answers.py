"""An answer that comes before the whole body was read reaches the client, also one that closes its connection."""

import http.client
import json
import socket
from collections.abc import Iterator
from hashlib import sha256
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from image_analysis_api.server.connections import LINGER_BYTES, LINGER_S
from support.api_processes import one_api
from support.raw_http import connection, read_answers, receive_all
from support.waiting import PATIENCE_S, wait_until

MUCH_BYTES = 20_000_000
KEY = "a" * 43
BODY = b"\0" * MUCH_BYTES
REFUSALS = [({}, 401, "unauthorized"), ({"X-API-Key": KEY}, 413, "image_too_large")]


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    with one_api(
        redis_url, API_KEYS=f"tester:{sha256(KEY.encode()).hexdigest()}", RATE_LIMIT_MAX_REQUESTS="1000"
    ) as url:
        yield url


@pytest.mark.parametrize(("headers", "status", "code"), REFUSALS)
def test_urllib_reads_a_refusal_of_a_large_body(url: str, headers: dict[str, str], status: int, code: str) -> None:
    for _ in range(10):
        request = Request(f"{url}/analyze-image", BODY, headers | {"Content-Type": "image/png"})

        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=PATIENCE_S)

        assert (refused.value.code, json.load(refused.value)["code"]) == (status, code)
        assert refused.value.headers["Connection"] == "close"
        refused.value.close()


def test_429_of_a_large_body_is_readable(redis_url: str) -> None:
    with one_api(redis_url, RATE_LIMIT_MAX_REQUESTS="1") as url:
        codes = []
        for _ in range(2):
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(f"{url}/analyze-image", BODY, {"Content-Type": "image/png"}), timeout=PATIENCE_S)
            codes.append(refused.value.code)
            refused.value.close()

    assert codes[-1] == 429


def test_refusal_of_a_chunked_body_is_readable(url: str) -> None:
    head = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connection(url) as opened:
        opened.sendall(head + b"%x\r\n" % MUCH_BYTES + BODY + b"\r\n0\r\n\r\n")
        [answer] = read_answers(receive_all(opened))

    assert (answer.status, answer.headers["connection"]) == (401, "close")


def test_head_has_no_body_and_the_connection_goes_on(url: str) -> None:
    host = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    for path in ("/health", "/openapi.json", "/docs"):
        host.request("HEAD", path)
        answer = host.getresponse()

        assert (answer.status, answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 0
    host.close()


@pytest.mark.parametrize("sent_bytes", [1, LINGER_BYTES + 8_000_000])
def test_client_that_goes_on_sending_or_stays_is_disconnected(url: str, sent_bytes: int) -> None:
    """The API reads a bounded part of the rest, for a bounded time, and then resets the connection."""
    head = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000000\r\n\r\n"

    with connection(url, LINGER_S + 10) as opened:
        opened.sendall(head)
        [answer] = read_answers(receive_all(opened))
        assert answer.status == 401

        wait_until(lambda: is_reset(opened, sent_bytes), "the API has closed the connection", timeout_s=LINGER_S + 10)


def is_reset(opened: socket.socket, sent_bytes: int) -> bool:
    try:
        opened.sendall(b"\0" * sent_bytes)
    except ConnectionError:
        return True
    return False
