"""The running stack delivers webhooks, even if the receiver fails or the deliverer is restarted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from redis import Redis
from standardwebhooks import WebhookVerificationError

from image_analysis_api.webhook_secrets import WebhookSecret
from image_analysis_common import keys
from stack import Stack
from support.documents import API, blocks
from support.samples import base64_body, make_png
from support.waiting import wait_until

FAILS, BREAKS, ACCEPTS = 500, 0, 204


@dataclass
class Message:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A web server on loopback that gives each of `answers` once, and then always the last one."""

    url: str = ""
    answers: list[int] = field(default_factory=lambda: [ACCEPTS])
    messages: list[Message] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.messages.append(Message(self.path, dict(self.headers.items()), body))
            status = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
            if status != BREAKS:
                self.send_response(status)
                self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hooks?of=cats"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture
def read_webhook() -> Callable[..., dict[str, Any]]:
    """The function from the documents that verifies a webhook."""
    [sample] = [block.text for block in blocks(API) if "def read_webhook" in block.text]
    names: dict[str, Any] = {}
    exec(sample, names)
    read: Callable[..., dict[str, Any]] = names["read_webhook"]
    return read


def submit(client: httpx.Client, seed: int, url: str) -> str:
    answer = client.post("/analyze-image", json=base64_body(make_png(seed)) | {"webhook_url": url})
    return str(answer.raise_for_status().json()["job_id"])


def test_receiver_that_fails_twice_gets_the_webhook_at_the_third_attempt(
    client: httpx.Client,
    stack: Stack,
    receiver: Receiver,
    read_webhook: Callable[..., dict[str, Any]],
    events: Callable[..., list[dict[str, Any]]],
) -> None:
    receiver.answers = [FAILS, BREAKS, ACCEPTS]

    job_id = submit(client, 800, receiver.url)
    wait_until(lambda: receiver.messages, "the first attempt")
    wait_until(lambda: events(event="webhook_retried", job_id=job_id), "the deliverer knows that it failed")
    stack.restart("deliverer")
    wait_until(lambda: events(event="webhook_delivered", job_id=job_id), "the webhook is delivered")

    assert [message.path for message in receiver.messages] == ["/hooks?of=cats"] * 3
    assert {message.headers["webhook-id"] for message in receiver.messages} == {f"msg_{job_id}"}
    delivered, secret = receiver.messages[-1], str(WebhookSecret.parse(stack.webhook_secret).of(None))
    assert delivered.body == client.get(f"/analysis-status/{job_id}").content
    assert read_webhook(secret, delivered.headers, delivered.body)["status"] == "COMPLETED"
    for changed in (delivered.body.replace(b"COMPLETED", b"FAILED"), delivered.body + b" "):
        with pytest.raises(WebhookVerificationError):
            read_webhook(secret, delivered.headers, changed)
    with Redis.from_url(stack.redis_url) as redis:
        assert not redis.exists(keys.delivery(job_id))
    assert "of=cats" not in str(events(job_id=job_id))


def test_cached_and_cancelled_jobs_are_delivered_too(
    client: httpx.Client, receiver: Receiver, held_worker: Callable[[], None]
) -> None:
    cancelled = submit(client, 801, receiver.url)
    client.delete(f"/analysis/{cancelled}")
    held_worker()
    first = submit(client, 802, receiver.url)
    wait_until(lambda: len(receiver.messages) == 2, "both are delivered")
    cached = submit(client, 802, receiver.url)
    wait_until(lambda: len(receiver.messages) == 3, "the third one is delivered")

    delivered = {message.headers["webhook-id"].removeprefix("msg_"): message.body for message in receiver.messages}
    assert delivered == {
        job_id: client.get(f"/analysis-status/{job_id}").content for job_id in (cancelled, first, cached)
    }
