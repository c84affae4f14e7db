"""A thousand clients wait for one job on one API process: all are notified, over one subscription."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from image_analysis_common import keys
from support.api_processes import api_process
from support.memory import resident_bytes
from support.redis_server import run_redis
from support.samples import base64_body, make_png
from support.steps import Steps

MODEL = "nobody-serves-this"
"""The test writes the job's steps, so it knows the moment of the end."""

WAITERS = 1000
AT_ONCE = 10
"""Connections that are opened at the same time: a busy machine answers no thousand handshakes in the time of one."""

TRIES = 3
"""A client may be refused before it waits: on a busy machine, Redis may not answer for it within 0.8 s."""

HANGS_S = 300.0

Told = tuple[list[str], float]
Wait = Callable[[str, str, Callable[[], None]], Coroutine[Any, Any, Told]]


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with run_redis(tmp_path_factory.mktemp("redis")) as server, Redis.from_url(server.url) as redis:
        yield redis


@pytest.fixture
def api(redis: Redis) -> Iterator[tuple[str, int]]:
    address = redis.connection_pool.connection_kwargs
    variables = {"MAX_WAITERS_PER_CLIENT": str(WAITERS), "MODEL_ID": MODEL, "LOG_LEVEL": "ERROR"}
    with api_process(f"redis://{address['host']}:{address['port']}/0", **variables) as api:
        yield api


async def by_events(url: str, job_id: str, is_waiting: Callable[[], None]) -> Told:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET /analysis-status/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    statuses, received_s = [], 0.0
    # Read to the last, empty chunk: the connection itself stays open for the next request.
    while (line := await reader.readline()) != b"0\r\n":
        assert line, "the connection was cut"
        if line.startswith(b"data: "):
            statuses.append(json.loads(line[6:])["status"])
            received_s = time.monotonic()
            if len(statuses) == 1:
                is_waiting()
    writer.close()
    return statuses, received_s


async def by_websocket(url: str, job_id: str, is_waiting: Callable[[], None]) -> Told:
    statuses, received_s = [], 0.0
    address = f"{url.replace('http', 'ws')}/ws/analysis-status/{job_id}"
    async with connect(address, proxy=None, open_timeout=HANGS_S, ping_timeout=HANGS_S, compression=None) as socket:
        async for message in socket:
            statuses.append(json.loads(message)["status"])
            received_s = time.monotonic()
            if len(statuses) == 1:
                is_waiting()
    return statuses, received_s


@pytest.mark.parametrize("wait", [by_events, by_websocket])
def test_a_thousand_clients_are_notified_of_the_end_at_once(redis: Redis, api: tuple[str, int], wait: Wait) -> None:
    url, process = api
    answer = httpx.post(f"{url}/analyze-image", json=base64_body(make_png(750)), trust_env=False).raise_for_status()
    job_id, steps = answer.json()["job_id"], Steps(redis, MODEL)
    before_bytes = resident_bytes(process)

    async def scene() -> tuple[list[Told], float, int]:
        all_wait, waiting, free = asyncio.Event(), 0, asyncio.Semaphore(AT_ONCE)

        def is_waiting() -> None:
            nonlocal waiting
            waiting += 1
            free.release()
            if waiting == WAITERS:
                all_wait.set()

        async def client() -> Told:
            await free.acquire()
            for _ in range(TRIES):
                has_entered = False

                def enter() -> None:
                    nonlocal has_entered
                    has_entered = True
                    is_waiting()

                try:
                    return await wait(url, job_id, enter)
                except (AssertionError, WebSocketException):
                    if has_entered:
                        raise
            raise AssertionError("the API refuses to let a client wait")

        async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as group:
            clients = [group.create_task(client()) for _ in range(WAITERS)]
            await all_wait.wait()
            held_bytes = resident_bytes(process) - before_bytes
            assert redis.pubsub_numsub(keys.CHANGES) == [(keys.CHANGES.encode(), 1)]
            steps.begin(job_id)
            steps.complete(job_id)
            ended_s = time.monotonic()
        return [client.result() for client in clients], ended_s, held_bytes

    received, ended_s, held_bytes = asyncio.run(scene())

    assert [statuses for statuses, _ in received] == [["PENDING", "PROCESSING", "COMPLETED"]] * WAITERS
    latest_s = max(received_s for _, received_s in received) - ended_s
    print(f"{WAITERS} {wait.__name__}: notified in {latest_s:.3f} s, {held_bytes / WAITERS / 1024:.1f} KiB each")
