"""Heads, trailers, chunk framing and pipelined requests are limited while they arrive."""

from collections.abc import Iterator

import httpx
import pytest

from support.api_processes import one_api
from support.raw_http import Answer, connection, exchange, read_answers, receive_all

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
MAX_URL_BYTES = 8000
MUCH = 1_000_000
"""Bytes of one line that never ends."""

START = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
JSON = b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TOO_LARGE = {
    "many headers": (START + b"a:\r\n" * (MAX_HEADERS + 1), 431),
    "a million headers": (START + b"a:\r\n" * MUCH, 431),
    "a header's name": (START + b"a" * MUCH, 431),
    "a header's value": (START + b"a: " + b"b" * MUCH, 431),
    "headers of some size": (START + (b"a: " + b"b" * 7000 + b"\r\n") * 20, 431),
    "spaces after the method": (b"GET" + b" " * MUCH, 431),
    "the URL": (b"GET /" + b"a" * MUCH, 414),
    "a URL over the limit": (b"GET /" + b"a" * MAX_URL_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "many trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n" + b"a:\r\n" * (MAX_HEADERS + 2), 431),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\na: " + b"b" * MUCH, 431),
    "a chunk's extension": (CHUNKED + b"2;" + b"a" * MUCH, 431),
    "a chunk's size": (CHUNKED + b"0" * MUCH, 431),
    "extensions of many chunks": (CHUNKED + (b"1;" + b"a" * 1000 + b"\r\n{\r\n") * 1000, 431),
}


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[str]:
    with one_api(redis_url, RATE_LIMIT_MAX_REQUESTS="1000000") as url:
        yield url


def assert_is_problem(answer: Answer, status: int) -> None:
    code = {400: "invalid_request", 414: "url_too_long", 431: "headers_too_large", 503: "unavailable"}[status]
    problem = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] == problem["request_id"]


@pytest.mark.parametrize("part", TOO_LARGE)
def test_too_much_of_a_part_is_refused_while_it_arrives(api: str, part: str) -> None:
    sent, status = TOO_LARGE[part]

    [answer] = exchange(api, sent)

    assert_is_problem(answer, status)


@pytest.mark.parametrize("part", TOO_LARGE)
def test_refusal_comes_after_the_answers_to_the_requests_before(api: str, part: str) -> None:
    sent, status = TOO_LARGE[part]

    first, second, answer = exchange(api, START + b"\r\n" + START + b"\r\n" + sent)

    assert (first.status, second.status) == (200, 200)
    assert_is_problem(answer, status)


def head_of(size_bytes: int, *, headers: int = 1) -> bytes:
    """Make a complete head with this number of bytes and headers."""
    small = b"GET /health/live HTTP/1.1\r\nConnection: close\r\n" + b"a: b\r\n" * (headers - 2) + b"c: \r\n\r\n"
    return small.replace(b"c: ", b"c: " + b"d" * (size_bytes - len(small)))


@pytest.mark.parametrize("packet_bytes", [MAX_HEAD_BYTES + 1, 1000])
def test_head_at_the_limits_is_read(api: str, packet_bytes: int) -> None:
    def send(head: bytes) -> int:
        packets = [head[at : at + packet_bytes] for at in range(0, len(head), packet_bytes)]
        return exchange(api, *packets)[0].status

    url = b"/health/live?" + b"a" * (MAX_URL_BYTES - len("/health/live?"))
    end = b" HTTP/1.1\r\nConnection: close\r\n\r\n"

    assert (send(head_of(MAX_HEAD_BYTES)), send(head_of(MAX_HEAD_BYTES + 1))) == (200, 431)
    assert (send(head_of(2000, headers=MAX_HEADERS)), send(head_of(2000, headers=MAX_HEADERS + 1))) == (200, 431)
    assert (send(b"GET " + url + end), send(b"GET " + url + b"a" + end)) == (200, 414)


@pytest.mark.parametrize(("chunk_bytes", "chunks"), [(1, 1000), (150, 10_000), (100_000, 100)])
def test_body_in_small_chunks_is_read(api: str, chunk_bytes: int, chunks: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (chunk_bytes, b"A" * chunk_bytes)

    body = b'10\r\n{"image_data": "\r\n' + chunk * chunks + b'2\r\n"}\r\n0\r\n\r\n'
    refused, last = exchange(api, CHUNKED + body + LAST)

    assert (refused.status, refused.json["code"], last.status) == (400, "unsupported_image", 200)


def test_trailer_is_no_header(api: str) -> None:
    answer, last = exchange(api, CHUNKED + b"2\r\n{}\r\n0\r\nX-Request-ID: mine\r\n\r\n" + LAST)

    assert (answer.status, last.status) == (400, 200)
    assert answer.headers["x-request-id"] != "mine"


def test_some_requests_in_advance_are_answered_and_too_many_are_refused(api: str) -> None:
    few = exchange(api, (START + b"\r\n") * 5 + LAST)
    *served, refused = exchange(api, (START + b"\r\n") * 3000)

    assert [answer.status for answer in few] == [200] * 6
    assert {answer.status for answer in served} == {200}
    assert 5 < len(served) < 50
    assert_is_problem(refused, 503)


def test_broken_chunk_is_refused_without_waiting_for_more(api: str) -> None:
    [answer] = exchange(api, CHUNKED, b"zz\r\n")
    [unwaited] = exchange(api, CHUNKED[:-2] + b"Expect: 100-continue\r\n\r\nzz\r\n")

    assert_is_problem(answer, 400)
    assert_is_problem(unwaited, 400)


def test_connection_serves_on_beside_one_that_was_refused(api: str) -> None:
    with httpx.Client(base_url=api, trust_env=False) as client, connection(api) as refused:
        client.get("/health/live")
        refused.sendall(START + b"a" * MUCH)
        [answer] = read_answers(receive_all(refused))

        assert (answer.status, client.get("/health/live").status_code) == (431, 200)
