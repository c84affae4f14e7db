"""The fetcher asks the checked address in the host's name, follows by the rules, keeps its limits and leaks nothing."""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import respx
from structlog.testing import capture_logs

from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_common.errors import FetchFailed, ImageTooLarge, RequestError, Unavailable, UrlRefused
from support.fakes import make_fetcher

pytestmark = pytest.mark.anyio

CLIENT = "198.51.100.7"
PUBLIC, OTHER, INSIDE = "93.184.216.34", "2606:4700::1111", "10.20.30.40"
NAMES = {
    "site.test": [PUBLIC],
    "xn--bcher-kva.test": [PUBLIC],
    "two.test": [OTHER, PUBLIC],
    "inside.test": [INSIDE],
    "mixed.test": [PUBLIC, INSIDE],
    "empty.test": [],
}
MAX_BYTES = 1000


class Pieces(httpx.AsyncByteStream):
    """A body in pieces that counts the pieces that were read."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.taken = 0
        self.is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece

    async def aclose(self) -> None:
        self.is_closed = True


class Web:
    """A fake network: names that resolve, a router that answers 200, and a record of both."""

    def __init__(self) -> None:
        self.router = respx.Router(assert_all_called=False)
        self.any = self.router.route().respond(content=b"image")
        self.looked_up: list[str] = []

    @property
    def requests(self) -> list[httpx.Request]:
        return [call.request for call in self.router.calls]

    async def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return NAMES[host]

    def fetcher(self, *networks: str, **arguments: Any) -> Fetcher:
        network = {"resolve": self.resolve, "transport": httpx.MockTransport(self.router.async_handler)}
        return make_fetcher(*networks, **{"max_bytes": MAX_BYTES, "timeout_s": 5.0, **network, **arguments})


def redirects(*locations: str) -> list[httpx.Response]:
    """Answer each request with the next redirect, then with the image."""
    headers = [{"location": location, "set-cookie": "session=1"} for location in locations]
    return [*(httpx.Response(302, headers=each) for each in headers), httpx.Response(200, content=b"image")]


async def test_request_goes_to_the_checked_address_in_the_name_of_the_host() -> None:
    web = Web()

    body = await web.fetcher().fetch("https://b\u00fccher.test./a/cat.png?size=1#part", CLIENT)

    (request,) = web.requests
    assert body == b"image"
    assert web.looked_up == ["xn--bcher-kva.test"]
    assert str(request.url.copy_with(fragment=None)) == f"https://{PUBLIC}/a/cat.png?size=1"
    assert request.extensions["sni_hostname"] == "xn--bcher-kva.test"
    assert set(request.extensions["timeout"]) == {"connect", "read", "write", "pool"}
    assert dict(request.headers) == {
        "host": "xn--bcher-kva.test",
        "accept": "image/*,*/*;q=0.5",
        "accept-encoding": "identity",
        "connection": "close",
        "user-agent": "image-analysis",
    }


async def test_ipv6_literal_is_asked_as_it_is() -> None:
    web = Web()

    await web.fetcher().fetch(f"https://[{OTHER}]/", CLIENT)

    (request,) = web.requests
    assert (request.url.host, request.headers["host"]) == (OTHER, f"[{OTHER}]")
    assert request.extensions["sni_hostname"] == OTHER
    assert web.looked_up == []


@pytest.mark.parametrize("host", ["inside.test", "mixed.test", "empty.test", "nowhere.test", INSIDE, "[::1]"])
async def test_host_without_only_public_addresses_is_refused_in_the_same_words(host: str) -> None:
    web = Web()

    with pytest.raises(UrlRefused) as caught:
        await web.fetcher().fetch(f"http://{host}/", CLIENT)

    assert web.requests == []
    assert caught.value.detail == "The URL's host has no public address to connect to: check the name."


async def test_next_address_is_tried_when_one_cannot_be_reached() -> None:
    web = Web()
    web.any.mock(side_effect=[httpx.ConnectError("unreachable"), httpx.Response(200, content=b"image")])

    assert await web.fetcher().fetch("http://two.test/", CLIENT) == b"image"
    assert [request.url.host for request in web.requests] == [OTHER, PUBLIC]


@pytest.mark.parametrize(
    ("port", "networks", "hosts"),
    [(80, (), ()), (443, (), ()), (8080, ("10.0.0.0/8", f"{PUBLIC}/32"), ()), (8080, (), ("site.test",))],
)
async def test_open_port_is_asked(port: int, networks: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    web = Web()

    await web.fetcher(*networks, allowed_hosts=frozenset(hosts)).fetch(f"http://site.test:{port}/", CLIENT)

    assert (web.requests[0].url.port or 80) == port


@pytest.mark.parametrize(
    ("host", "networks", "hosts"),
    [
        ("site.test", (), ()),
        ("site.test", ("10.0.0.0/8",), ("other.test",)),
        ("two.test", (f"{PUBLIC}/32",), ()),
    ],
)
async def test_other_port_is_refused(host: str, networks: tuple[str, ...], hosts: tuple[str, ...]) -> None:
    web = Web()

    with pytest.raises(UrlRefused, match="80, 443"):
        await web.fetcher(*networks, allowed_hosts=frozenset(hosts)).fetch(f"http://{host}:22/", CLIENT)

    assert web.requests == []


async def test_allowed_host_with_an_inside_address_is_refused() -> None:
    with pytest.raises(UrlRefused):
        await Web().fetcher(allowed_hosts=frozenset({"inside.test"})).fetch("http://inside.test/", CLIENT)


async def test_three_redirects_are_followed_without_cookies_and_each_is_looked_up_afresh() -> None:
    web = Web()
    web.any.mock(side_effect=redirects("/b", "https://site.test/c", "//two.test/d"))

    assert await web.fetcher().fetch("http://site.test/a", CLIENT) == b"image"
    assert web.looked_up == ["site.test", "site.test", "site.test", "two.test"]
    assert [str(request.url) for request in web.requests] == [
        f"http://{PUBLIC}/a",
        f"http://{PUBLIC}/b",
        f"https://{PUBLIC}/c",
        f"https://[{OTHER}]/d",
    ]
    assert all("cookie" not in request.headers for request in web.requests)


@pytest.mark.parametrize(
    "locations",
    [
        ["/1", "/2", "/3", "/4"],
        ["http://site.test/"],
        ["https://inside.test/"],
        ["https://site.test/ok", "https://[::ffff:127.0.0.1]/"],
        ["https://site.test:22/"],
        ["https://user:word@site.test/"],
        ["file:///etc/passwd"],
        ["https://0x7f.1/"],
    ],
)
async def test_redirect_against_the_rules_is_refused(locations: list[str]) -> None:
    web = Web()
    web.any.mock(side_effect=redirects(*locations))

    with pytest.raises(UrlRefused):
        await web.fetcher().fetch("https://site.test/", CLIENT)

    assert {request.url.host for request in web.requests} == {PUBLIC}
    assert len(web.requests) == len(locations)


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 404, 429, 500, 503])
async def test_status_other_than_200_is_a_failed_fetch_that_quotes_nothing(status: int) -> None:
    body = Pieces(b"root:x:0:0")
    web = Web()
    web.any.respond(status, headers={"x-secret": "key"}, stream=body)

    with pytest.raises(FetchFailed) as caught:
        await web.fetcher().fetch("http://site.test/", CLIENT)

    assert not any(word in caught.value.detail for word in ("root", "key", str(status)))
    assert (body.taken, body.is_closed) == (0, True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x-unknown"])
async def test_encoded_body_is_refused_unread(encoding: str) -> None:
    body = Pieces(b"bomb")
    web = Web()
    web.any.respond(headers={"content-encoding": encoding}, stream=body)

    with pytest.raises(FetchFailed):
        await web.fetcher().fetch("http://site.test/", CLIENT)

    assert (body.taken, body.is_closed) == (0, True)


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}, {"content-encoding": "Identity"}])
async def test_body_is_cut_off_at_the_limit_whatever_the_headers_say(headers: dict[str, str]) -> None:
    body = Pieces(*[b"x" * 400] * 100)
    web = Web()
    web.any.respond(headers=headers, stream=body)

    with pytest.raises(ImageTooLarge):
        await web.fetcher().fetch("http://site.test/", CLIENT)

    assert (body.taken, body.is_closed) == (3, True)


async def test_body_that_is_declared_too_large_is_not_read() -> None:
    body = Pieces(b"x")
    web = Web()
    web.any.respond(headers={"content-length": str(MAX_BYTES + 1)}, stream=body)

    with pytest.raises(ImageTooLarge):
        await web.fetcher().fetch("http://site.test/", CLIENT)

    assert (body.taken, body.is_closed) == (0, True)


async def test_body_of_exactly_the_limit_arrives() -> None:
    web = Web()
    web.any.respond(stream=Pieces(b"x" * 600, b"y" * 400))

    assert await web.fetcher().fetch("http://site.test/", CLIENT) == b"x" * 600 + b"y" * 400


async def test_body_in_single_bytes_is_given_up() -> None:
    body = Pieces(*[b"x"] * MAX_BYTES)
    web = Web()
    web.any.respond(stream=body)

    with pytest.raises(FetchFailed):
        await web.fetcher().fetch("http://site.test/", CLIENT)

    assert body.taken < 300


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError(f"refused by {PUBLIC}"),
        httpx.ConnectTimeout(PUBLIC),
        httpx.ReadTimeout(PUBLIC),
        httpx.ReadError(PUBLIC),
        httpx.RemoteProtocolError(PUBLIC),
        ssl.SSLError(1, PUBLIC),
        ConnectionResetError(PUBLIC),
        TimeoutError(PUBLIC),
    ],
)
async def test_vendor_error_is_a_failed_fetch_that_quotes_nothing(error: Exception) -> None:
    web = Web()
    web.any.mock(side_effect=error)

    with pytest.raises(FetchFailed) as caught:
        await web.fetcher().fetch("http://site.test/secret?token=1", CLIENT)

    assert caught.value.__cause__ is error
    assert not any(word in caught.value.detail for word in (PUBLIC, "site.test", "secret", "token"))


async def test_name_server_that_does_not_answer_is_a_failed_fetch() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with pytest.raises(FetchFailed):
        await Web().fetcher(resolve=resolve).fetch("http://site.test/", CLIENT)


async def test_slow_name_server_is_not_waited_for() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(FetchFailed, match="looked up"):
        await Web().fetcher(resolve=resolve, resolve_timeout_s=0.01).fetch("http://site.test/", CLIENT)


async def test_host_that_never_ends_hits_the_total_time_limit() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    web = Web()
    web.any.mock(side_effect=handler)

    with pytest.raises(FetchFailed, match=r"within 0\.01 s"):
        await web.fetcher(timeout_s=0.01).fetch("http://site.test/", CLIENT)


class SlowHost(Web):
    """A host that answers when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.any.mock(side_effect=self.answer)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await self.may_answer.wait()
        return httpx.Response(200, content=b"image")


async def start(fetcher: Fetcher, *clients: str) -> list[asyncio.Task[bytes]]:
    """Start a fetch for each client; refused ones have ended."""
    fetches = [asyncio.ensure_future(fetcher.fetch("http://site.test/", client)) for client in clients]
    await asyncio.wait(fetches, timeout=0)
    return fetches


async def test_fetch_beyond_the_concurrency_limit_is_refused_at_once_and_later_ones_are_served() -> None:
    host = SlowHost()
    fetcher = host.fetcher(max_concurrent=2)
    under_way = await start(fetcher, "one", "two")

    with pytest.raises(Unavailable):
        await fetcher.fetch("http://site.test/", "three")
    host.may_answer.set()

    assert await asyncio.gather(*under_way) == [b"image", b"image"]
    assert await fetcher.fetch("http://site.test/", "one") == b"image"


async def test_client_takes_half_of_all_fetches_at_most_and_the_next_one_half_of_the_rest() -> None:
    host = SlowHost()
    fetcher = host.fetcher(max_concurrent=16)

    fetches = {client: await start(fetcher, *[client] * 20) for client in ("one", "two", "three", "four", "five")}
    under_way = {client: sum(not fetch.done() for fetch in of_one) for client, of_one in fetches.items()}
    [once_more] = await start(fetcher, "one")
    host.may_answer.set()
    ends = await asyncio.gather(*[fetch for of_one in fetches.values() for fetch in of_one], return_exceptions=True)

    assert under_way == {"one": 8, "two": 4, "three": 2, "four": 1, "five": 1}
    assert isinstance(once_more.exception(), Unavailable)
    assert Counter(map(type, ends)) == {bytes: 16, Unavailable: 84}


async def test_refused_fetches_take_no_place() -> None:
    fetcher = Web().fetcher(max_concurrent=1)
    for _ in range(3):
        with pytest.raises(RequestError):
            await fetcher.fetch("http://inside.test/", CLIENT)

    assert await fetcher.fetch("http://site.test/", CLIENT) == b"image"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://site.test/secret?token=1", {"host": "site.test", "outcome": "fetched", "cause": None, "hops": 1}),
        ("http://inside.test/secret", {"host": "inside.test", "outcome": "url_refused", "cause": None, "hops": 1}),
        ("http://no.test/s", {"host": "no.test", "outcome": "url_refused", "cause": "gaierror", "hops": 1}),
        ("ftp://site.test/secret", {"host": None, "outcome": "url_refused", "cause": None, "hops": 0}),
    ],
)
async def test_each_outcome_is_one_log_line_without_path_or_query(url: str, expected: dict[str, Any]) -> None:
    with capture_logs() as lines, contextlib.suppress(UrlRefused):
        await Web().fetcher().fetch(url, CLIENT)

    assert lines == [{"event": "image_fetch", "log_level": "info", **expected}]
