"""The fetcher on real sockets: no form of a loopback address reaches a listener there; allowed hosts are reached."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.outbound.resolver import Resolver
from image_analysis_common.errors import FetchFailed, ImageTooLarge, RequestError, UrlRefused
from support.fakes import make_fetcher
from support.listeners import Listener, image, listening

pytestmark = pytest.mark.anyio

CLIENT = "198.51.100.7"
PUBLIC = "93.184.216.34"
LOOPBACK = "127.0.0.0/8"
MAX_BYTES = 100_000
NAMES = {
    "loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "zone.test": ["fe80::1%1"],
    "metadata.test": ["169.254.169.254"],
    "mixed.test": [PUBLIC, "127.0.0.1"],
    "private.test": ["10.0.0.1"],
    "xn--lpbck-zqa7ja.test": ["127.0.0.1"],
    "site.test": [PUBLIC],
}


class OutboundClient(httpx.AsyncBaseTransport):
    """The real transport for loopback; records the requests, and answers for public addresses itself."""

    def __init__(self, redirect_to: str = "") -> None:
        self.real = httpx.AsyncHTTPTransport(trust_env=False)
        self.asked: list[str] = []
        self.redirect_to = redirect_to

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        if request.url.host == PUBLIC:
            return httpx.Response(302, headers={b"location": self.redirect_to.encode()})
        return await self.real.handle_async_request(request)

    async def aclose(self) -> None:
        await self.real.aclose()


async def permissive_resolve(host: str, port: int) -> list[str]:
    """Resolve as the C library does: names, and every form of an IPv4 address that `inet_aton` accepts."""
    if host in NAMES:
        return NAMES[host]
    try:
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None


@contextlib.asynccontextmanager
async def fetching(*networks: str, **arguments: Any) -> AsyncIterator[Fetcher]:
    limits = {"max_bytes": MAX_BYTES, "timeout_s": 10.0, "max_concurrent": 4, "resolve": permissive_resolve}
    fetcher = make_fetcher(*networks, **{**limits, **arguments})
    try:
        yield fetcher
    finally:
        await fetcher.aclose()


HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.255.255.254:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.1.:{port}/",
    "http://0:{port}/",
    "http://2130706433:{port}/",
    "http://02130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0x7f000001:{port}/",
    "http://0X7F000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x7f.0x0.0x0.0x1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.0.0.01:{port}/",
    "http://00000177.0.0.1:{port}/",
    "http://127.0.0.0x1:{port}/",
    "http://127.000.000.001:{port}/",
    "http://383.0.0.1:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127\uff0e0\uff0e0\uff0e1:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://127.0.0.1%00.site.test:{port}/",
    "http://127%2e0%2e0%2e1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:7f00:0001]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2001:0:5db8:d822::80ff:fffe]:{port}/",
    "http://[2606:4700::5efe:127.0.0.1]:{port}/",
    "http://[2606:4700::200:5efe:7f00:1]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%251]:{port}/",
    "http://[fe80::1%1]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://user:word@127.0.0.1:{port}/",
    "http://site.test@127.0.0.1:{port}/",
    "http://site.test:80@127.0.0.1:{port}/",
    "http://site.test\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@site.test/",
    "http://127.0.0.1:{port}#@site.test/",
    "http://site.test:{port}:80/",
    "http://site.test:22/",
    "http://site.test:6379/",
    "http://site.test:0/",
    "http://site.test:65616/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/",
    "dict://127.0.0.1:{port}/info",
    "ws://127.0.0.1:{port}/",
    "unix://127.0.0.1:{port}/",
    "jar:http://127.0.0.1:{port}!/",
    "http://127.0.0.1:{port}/\r\nHost: site.test",
    "http://127.0.0.1\t:{port}/",
    "http://loopback.test:{port}/",
    "http://LOOPBACK.test.:{port}/",
    "http://lóópbáck.test:{port}/",
    "http://loopback6.test:{port}/",
    "http://mapped.test:{port}/",
    "http://mixed.test:{port}/",
    "http://zone.test:{port}/",
    "http://metadata.test/",
    "http://private.test/",
    "http://unknown.test:{port}/",
    "https://127.0.0.1:{port}/",
    "https://loopback.test:{port}/",
]


@pytest.mark.parametrize("url", HOSTILE)
async def test_hostile_url_is_refused_without_a_connection(url: str) -> None:
    outbound = OutboundClient()
    async with listening(image) as listener:
        ports = frozenset({80, 443, listener.port})
        async with fetching(allowed_ports=ports, transport=outbound) as fetcher:
            with pytest.raises(UrlRefused) as caught:
                await fetcher.fetch(url.replace("{port}", str(listener.port)), CLIENT)

    assert (listener.connects, outbound.asked) == (0, [])
    assert "127.0.0.1" not in caught.value.detail


@pytest.mark.parametrize("url", [url for url in HOSTILE if url.startswith("http")])
async def test_redirect_to_a_hostile_url_makes_no_connection(url: str) -> None:
    async with listening(image) as listener:
        outbound = OutboundClient(redirect_to=url.replace("{port}", str(listener.port)).replace("\r\n", ""))
        ports = frozenset({80, 443, listener.port})
        async with fetching(allowed_ports=ports, transport=outbound) as fetcher:
            with pytest.raises(RequestError):
                await fetcher.fetch("http://site.test/", CLIENT)

    assert listener.connects == 0
    assert set(outbound.asked) == {PUBLIC}


async def test_name_that_the_system_resolves_to_loopback_makes_no_connection() -> None:
    async with (
        listening(image) as listener,
        fetching(allowed_ports=frozenset({listener.port}), resolve=Resolver()) as fetcher,
    ):
        with pytest.raises(UrlRefused):
            await fetcher.fetch(f"http://localhost:{listener.port}/", CLIENT)

    assert listener.connects == 0


async def test_rebinding_name_is_fetched_from_its_checked_address_only() -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with listening(image) as listener:
        outbound = OutboundClient(redirect_to=f"http://site.test:{listener.port}/")
        ports = frozenset({80, listener.port})
        async with fetching(allowed_ports=ports, transport=outbound, resolve=rebinding) as fetcher:
            with pytest.raises(UrlRefused):
                await fetcher.fetch("http://site.test/", CLIENT)

    assert (listener.connects, outbound.asked, answers) == (0, [PUBLIC], [])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "loopback.test", "mapped.test"])
async def test_image_of_an_allowed_network_arrives_on_any_port(host: str) -> None:
    async with listening(image) as listener, fetching(LOOPBACK) as fetcher:
        assert await fetcher.fetch(f"http://{host}:{listener.port}/cat.png", CLIENT) == b"image"

    assert listener.connects == 1


async def test_system_resolver_finds_an_allowed_name() -> None:
    async with listening(image) as listener, fetching(LOOPBACK, resolve=Resolver()) as fetcher:
        assert await fetcher.fetch(f"http://localhost:{listener.port}/", CLIENT) == b"image"

    assert f"Host: localhost:{listener.port}\r\n" in listener.heads[0]


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(image) as proxy, listening(image) as listener:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with fetching(LOOPBACK) as fetcher:
            await fetcher.fetch(f"http://loopback.test:{listener.port}/", CLIENT)

    assert (proxy.connects, listener.connects) == (0, 1)


async def test_no_connection_is_used_twice() -> None:
    async with listening(image) as listener, fetching(LOOPBACK) as fetcher:
        for _ in range(3):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)

    assert listener.connects == 3


@pytest.mark.parametrize(("redirects", "is_followed"), [(3, True), (4, False)])
async def test_chain_of_three_redirects_is_followed_and_of_four_refused(redirects: int, is_followed: bool) -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        if listener.connects <= redirects:
            await listener.send(writer, b"HTTP/1.1 302 Found\r\nLocation: next\r\nContent-Length: 0\r\n\r\n")
        else:
            await image(listener, writer)

    async with listening(answer) as listener, fetching(LOOPBACK) as fetcher:
        if is_followed:
            assert await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT) == b"image"
        else:
            with pytest.raises(UrlRefused):
                await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)

    assert listener.connects == 4


@pytest.mark.parametrize("head", ["", "Content-Length: 99999999\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_body_over_the_limit_is_cut_off(head: str) -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.send(writer, f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
        while True:
            await listener.send(writer, b"8000\r\n" + b"x" * 0x8000 + b"\r\n")

    async with listening(answer) as listener, fetching(LOOPBACK) as fetcher:
        with pytest.raises(ImageTooLarge):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)
        await asyncio.wait_for(listener.gone.wait(), 10)

    assert listener.connects == 1


async def test_body_shorter_than_declared_is_a_failed_fetch() -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nimage")

    async with listening(answer) as listener, fetching(LOOPBACK) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)


async def test_dripping_host_hits_the_total_time_limit() -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.send(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n")
        while not listener.gone.is_set():
            await listener.send(writer, b"x")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.gone.wait(), 0.02)

    async with listening(answer) as listener, fetching(LOOPBACK, timeout_s=0.3) as fetcher:
        with pytest.raises(FetchFailed, match=r"within 0\.3 s"):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)
        await asyncio.wait_for(listener.gone.wait(), 10)


async def test_silent_host_hits_the_read_time_limit() -> None:
    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        await listener.gone.wait()

    async with listening(answer) as listener, fetching(LOOPBACK, read_timeout_s=0.05) as fetcher:
        with pytest.raises(FetchFailed, match="could not be reached"):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)
        listener.gone.set()


async def test_refused_connection_is_a_failed_fetch() -> None:
    async with listening(image) as listener:
        pass
    async with fetching(LOOPBACK) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)


async def test_gzip_bomb_is_refused_undecoded() -> None:
    bomb = gzip.compress(bytes(50_000_000))

    async def answer(listener: Listener, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
        await listener.send(writer, head.encode() + bomb)

    async with listening(answer) as listener, fetching(LOOPBACK) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.fetch(f"http://127.0.0.1:{listener.port}/", CLIENT)

    assert "accept-encoding: identity\r\n" in listener.heads[0].lower()
