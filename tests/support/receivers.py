"""Webhook receivers whose answers a test chooses, and the code with which a client reads a webhook."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import httpx
from standardwebhooks import Webhook

from image_analysis_api.deliverer.courier import Courier
from image_analysis_api.webhook_secrets import WebhookSecret
from support.fakes import make_egress

SECRET = WebhookSecret(b"0" * 32)
OTHER_SECRET = WebhookSecret(b"1" * 32)
NETWORK = "198.51.100.0/24"
ADDRESS = "198.51.100.1"
Handler = Callable[[httpx.Request], Any]


class Receivers:
    """Web servers with any name, all at one address; `handler` answers for them. Without a handler, they answer 204."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler or (lambda request: httpx.Response(204))
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        return [ADDRESS]

    def answer(self, request: httpx.Request) -> Any:
        self.requests.append(request)
        return self.handler(request)

    @property
    def received(self) -> list[str]:
        """The jobs of the received webhooks, in order."""
        return [request.headers["webhook-id"].removeprefix("msg_") for request in self.requests]

    def courier(self, *secrets: WebhookSecret, timeout_s: float = 5, **egress: Any) -> Courier:
        network = {"resolve": self.resolve, "transport": httpx.MockTransport(self.answer)}
        return Courier(make_egress(NETWORK, **{**network, **egress}), secrets or (SECRET,), timeout_s=timeout_s)


class LoopbackReceiver(ThreadingHTTPServer):
    """A web server that notes the webhooks that it gets, and answers while `may_answer` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        self.may_answer = Event()
        self.received: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackReceiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(self.headers["webhook-id"])
        self.server.may_answer.wait(30)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def run_receiver() -> Iterator[LoopbackReceiver]:
    with LoopbackReceiver() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


def read(request: httpx.Request, secret: WebhookSecret = SECRET, owner: str | None = None) -> dict[str, Any]:
    """Verify a webhook as its receiver does, with the receiver's secret, and return its body."""
    body: dict[str, Any] = Webhook(str(secret.of(owner))).verify(request.content, dict(request.headers))
    return body
