"""The certificate is verified against the name of the URL's host, although the connection goes to an address."""

import ssl
from pathlib import Path

import pytest

from image_analysis_api.outbound.transport import OutboundTransport
from image_analysis_common.errors import FetchFailed
from support.certificates import make_certificate
from support.fakes import make_fetcher
from support.listeners import Listener, image, listening

pytestmark = pytest.mark.anyio

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def asked_names() -> list[str | None]:
    """Collect the server names that clients request."""
    return []


@pytest.fixture
def contexts(tmp_path: Path, asked_names: list[str | None]) -> Contexts:
    """Make a server's TLS context for `image.test`, and a client's context that trusts its certificate."""
    key, certificate = make_certificate("image.test")
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "certificate.pem").write_text(certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    server.sni_callback = lambda _socket, name, _context: asked_names.append(name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificate)
    return server, client


async def fetch(listener: Listener, host: str, client: ssl.SSLContext | None) -> bytes:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    fetcher = make_fetcher(
        "127.0.0.0/8",
        max_bytes=100,
        timeout_s=10,
        allowed_ports=frozenset(),
        resolve=resolve,
        transport=OutboundTransport(client) if client else None,
    )
    try:
        return await fetcher.fetch(f"https://{host}:{listener.port}/cat.png", "client")
    finally:
        await fetcher.aclose()


@pytest.mark.parametrize("host", ["image.test", "IMAGE.test."])
async def test_certificate_for_the_name_is_accepted(
    contexts: Contexts, asked_names: list[str | None], host: str
) -> None:
    server, client = contexts
    async with listening(image, server) as listener:
        assert await fetch(listener, host, client) == b"image"

    assert asked_names == ["image.test"]
    assert f"Host: image.test:{listener.port}\r\n" in listener.heads[0]


@pytest.mark.parametrize(("host", "name"), [("other.test", "other.test"), ("127.0.0.1", None)])
async def test_certificate_for_another_name_is_refused_before_the_request(
    contexts: Contexts, asked_names: list[str | None], host: str, name: str | None
) -> None:
    server, client = contexts
    async with listening(image, server) as listener:
        with pytest.raises(FetchFailed, match="valid certificate"):
            await fetch(listener, host, client)

    assert (asked_names, listener.heads) == ([name], [])


async def test_self_signed_certificate_is_refused(contexts: Contexts) -> None:
    async with listening(image, contexts[0]) as listener:
        with pytest.raises(FetchFailed, match="valid certificate"):
            await fetch(listener, "image.test", None)

    assert listener.heads == []
