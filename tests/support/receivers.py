"""Receivers of webhooks that answer as a test tells them to, and a client's way to read what they got."""

from collections.abc import Callable
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
    """Web servers under any name, all at one address; `handler` answers for them, 204 without one."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.handler = handler or (lambda request: httpx.Response(204))
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        return [ADDRESS]

    def answer(self, request: httpx.Request) -> Any:
        self.requests.append(request)
        return self.handler(request)

    @property
    def told(self) -> list[str]:
        """The jobs that they were told of, in order."""
        return [request.headers["webhook-id"].removeprefix("msg_") for request in self.requests]

    def courier(self, *secrets: WebhookSecret, timeout_s: float = 5, **egress: Any) -> Courier:
        network = {"resolve": self.resolve, "transport": httpx.MockTransport(self.answer)}
        return Courier(make_egress(NETWORK, **{**network, **egress}), secrets or (SECRET,), timeout_s=timeout_s)


def read(request: httpx.Request, secret: WebhookSecret = SECRET, owner: str | None = None) -> dict[str, Any]:
    """Verify a message as its receiver does, with the secret that the receiver was given, and return its body."""
    body: dict[str, Any] = Webhook(str(secret.of(owner))).verify(request.content, dict(request.headers))
    return body
