"""Waiting for a job on the running stack, while its parts are restarted."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
from redis import Redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from image_analysis_common import keys
from stack import Stack
from support.samples import base64_body, make_png
from support.waiting import PATIENCE_S, wait_until

WHOLE_RUN = ["PENDING", "PROCESSING", "COMPLETED"]


class Listener(Thread):
    """Reads the statuses of a job until the service ends the stream."""

    def __init__(self, stack: Stack, job_id: str) -> None:
        super().__init__(daemon=True)
        self.job_id = job_id
        self.base_url = stack.api_url
        self.statuses: list[str] = []
        self.last: dict[str, Any] = {}
        self.end: object = None

    def note(self, body: str) -> None:
        self.last = json.loads(body)
        self.statuses.append(self.last["status"])

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.statuses) >= count, f"{count} statuses are received")

    def ended(self) -> object:
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the stream never ended"
        return self.end


class StreamListener(Listener):
    """Server-Sent Events."""

    last_id = ""

    def run(self) -> None:
        url, headers = f"{self.base_url}/analysis-status/{self.job_id}/events", {"Last-Event-ID": self.last_id}
        with httpx.stream("GET", url, headers=headers, trust_env=False) as answer:
            self.end = answer.status_code
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    self.note(value)

    def again(self, stack: Stack) -> "StreamListener":
        again = StreamListener(stack, self.job_id)
        again.last_id = self.last_id
        again.start()
        return again


class SocketListener(Listener):
    """A WebSocket."""

    def run(self) -> None:
        with connect(f"{self.base_url.replace('http', 'ws')}/ws/analysis-status/{self.job_id}", proxy=None) as socket:
            try:
                while True:
                    self.note(str(socket.recv()))
            except ConnectionClosed as closed:
                self.end = closed.rcvd and closed.rcvd.code


KINDS = [StreamListener, SocketListener]


def submit(client: httpx.Client, seed: int) -> str:
    return str(client.post("/analyze-image", json=base64_body(make_png(seed))).raise_for_status().json()["job_id"])


@contextmanager
def listening(kind: type[Listener], stack: Stack, job_id: str) -> Iterator[Listener]:
    listener = kind(stack, job_id)
    listener.start()
    listener.wait_for(1)
    yield listener


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_client_gets_every_status_and_the_result(
    stack: Stack, client: httpx.Client, held_worker: Callable[[], None], kind: type[Listener]
) -> None:
    job_id = submit(client, 700 + KINDS.index(kind))

    with listening(kind, stack, job_id) as listener:
        held_worker()

        assert listener.ended() == {StreamListener: 200, SocketListener: 1000}[kind]
    assert listener.statuses == WHOLE_RUN
    assert listener.last == client.get(f"/analysis-status/{job_id}").json()


@pytest.mark.parametrize("kind", KINDS)
def test_no_client_hangs_after_a_restart_of_redis(
    stack: Stack, client: httpx.Client, held_worker: Callable[[], None], kind: type[Listener]
) -> None:
    job_id = submit(client, 710 + KINDS.index(kind))

    with listening(kind, stack, job_id) as listener:
        stack.restart("redis")
        held_worker()

        assert listener.ended() == {StreamListener: 200, SocketListener: 1000}[kind]
    assert listener.statuses == WHOLE_RUN


def test_restart_of_the_api_ends_streams_in_order_without_duplicates(
    stack: Stack, client: httpx.Client, held_worker: Callable[[], None]
) -> None:
    job_id = submit(client, 720)
    with listening(StreamListener, stack, job_id) as stream, listening(SocketListener, stack, job_id) as socket:
        stack.restart("api")
        assert (stream.ended(), socket.ended()) == (200, 1012)
    wait_until(lambda: answers(client), "the API answers again")

    assert isinstance(stream, StreamListener)
    again = stream.again(stack)
    held_worker()

    assert again.ended() == 200
    assert (stream.statuses + again.statuses, socket.statuses) == (WHOLE_RUN, WHOLE_RUN[:1])
    late = again.again(stack)
    assert (late.ended(), late.statuses) == (204, [])


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def test_submission_that_prefers_to_wait_gets_its_result(client: httpx.Client) -> None:
    answer = client.post("/analyze-image", json=base64_body(make_png(730)), headers={"Prefer": "wait=10"})

    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=10")
    assert answer.json() == client.get(f"/analysis-status/{answer.json()['job_id']}").json()
    assert (answer.json()["status"], answer.json()["cached"]) == ("COMPLETED", False)


def test_waiting_job_has_a_queue_position(
    client: httpx.Client, held_worker: Callable[[], None], ask: Callable[[str], dict[str, Any]]
) -> None:
    jobs = [submit(client, seed) for seed in (731, 732)]
    waiting = [client.get(f"/analysis-status/{job_id}").json() for job_id in jobs]
    held_worker()
    ended = [ask(job_id) for job_id in jobs]

    assert [body.get("queue_position") for body in waiting] == [1, 2]
    assert "queue_position" not in ended[1]


@pytest.mark.parametrize(("program", "status"), [("redis", "COMPLETED"), ("api", "PENDING")])
def test_restart_during_a_wait_is_answered(
    stack: Stack, client: httpx.Client, held_worker: Callable[[], None], program: str, status: str
) -> None:
    job_id = submit(client, 733 + len(program))
    with Redis.from_url(stack.redis_url) as redis, redis.monitor() as commands, ThreadPoolExecutor() as threads:
        asking = threads.submit(client.get, f"/analysis-status/{job_id}?wait=60")
        # The API subscribes first, then reads the job.
        wait_until(lambda: keys.job(job_id) in commands.next_command()["command"], "the API looks at the job")
        stack.restart(program)
        held_worker()

        assert asking.result().json()["status"] == status
    wait_until(lambda: answers(client), "the API answers again")
