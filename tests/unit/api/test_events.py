"""GET /analysis-status/{job_id}/events."""

import asyncio
import json
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI

from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.fakes import MakeApp, MakeClient
from support.samples import base64_body, make_png
from support.steps import WHOLE_RUN, Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

EVENTS = "/analysis-status/{}/events"
API_KEYS = f"alice:{sha256(b'a').hexdigest()},bob:{sha256(b'b').hexdigest()}"


def read_events(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Read a stream's events: the ID and the data of each."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if fields.get("event") == "status":
            events.append((int(fields["id"]), json.loads(fields["data"])))
    return events


@pytest.fixture
def app(make_app: MakeApp) -> FastAPI:
    return make_app(max_waiters=4, max_waiters_per_client=3)


async def submit(client: httpx.AsyncClient, seed: int = 0) -> str:
    return str((await client.post("/analyze-image", json=base64_body(make_png(seed)))).json()["job_id"])


async def waited(app: FastAPI, count: int) -> None:
    async def are_there() -> bool:
        return len(app.state.services.waiting_room) == count

    await eventually(are_there, f"{count} wait")


async def test_every_status_comes_once_in_order_and_then_the_end(
    app: FastAPI, client: httpx.AsyncClient, steps: Steps
) -> None:
    job_id = await submit(client)
    following = asyncio.create_task(client.get(EVENTS.format(job_id)))
    await waited(app, 1)
    steps.run_with_retry(job_id)

    answer = await following

    events = read_events(answer.text)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.text.startswith("retry: 1000\n\n")
    assert [(number, body["status"]) for number, body in events] == list(enumerate(WHOLE_RUN))
    assert events[-1][1] == (await client.get(f"/analysis-status/{job_id}")).json()
    assert [body["result"] for _, body in events[:-1]] == [None] * 4


@pytest.mark.parametrize("seen", range(4))
async def test_reconnecting_client_gets_only_the_later_events(
    client: httpx.AsyncClient, steps: Steps, seen: int
) -> None:
    job_id = await submit(client)
    steps.run_with_retry(job_id)

    answer = await client.get(EVENTS.format(job_id), headers={"Last-Event-ID": str(seen)})

    assert [number for number, _ in read_events(answer.text)] == list(range(seen + 1, 5))


async def test_reconnecting_client_that_has_seen_the_end_gets_204(client: httpx.AsyncClient, steps: Steps) -> None:
    job_id = await submit(client)
    steps.run_with_retry(job_id)

    answer = await client.get(EVENTS.format(job_id), headers={"Last-Event-ID": "4"})

    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("seen", ["", "-1", "5", "9" * 30, "9" * 5000, "x", "٣"])
async def test_unknown_last_event_id_gets_everything(client: httpx.AsyncClient, steps: Steps, seen: str) -> None:
    job_id = await submit(client)
    steps.run_with_retry(job_id)

    answer = await client.get(EVENTS.format(job_id), headers={b"Last-Event-ID": seen.encode()})

    assert len(read_events(answer.text)) == 5


async def test_follower_of_the_same_image_gets_every_step(
    app: FastAPI, client: httpx.AsyncClient, steps: Steps
) -> None:
    leader, follower = await submit(client), await submit(client)
    following = [asyncio.create_task(client.get(EVENTS.format(job_id))) for job_id in (leader, follower)]
    await waited(app, 2)
    steps.run_with_retry(leader)

    statuses = [[body["status"] for _, body in read_events((await task).text)] for task in following]

    assert statuses == [WHOLE_RUN, WHOLE_RUN]


async def test_known_result_is_one_event(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    job_id, record = str(uuid4()), JobRecord(status=JobStatus.COMPLETED, image_hash="0" * 64, cached=True)
    await redis.hset(keys.job(job_id), mapping=record.to_hash())

    events = read_events((await client.get(EVENTS.format(job_id))).text)

    assert [(number, body["status"], body["cached"]) for number, body in events] == [(0, "COMPLETED", True)]


@pytest.mark.parametrize(("job_id", "status", "code"), [(uuid4(), 404, "job_not_found"), ("7", 400, "invalid_request")])
async def test_refusals_are_those_of_the_status(
    client: httpx.AsyncClient, app: FastAPI, job_id: object, status: int, code: str
) -> None:
    answer = await client.get(EVENTS.format(job_id))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(app.state.services.waiting_room) == 0


async def test_only_the_owner_may_follow(make_client: MakeClient) -> None:
    client = await make_client(api_keys=API_KEYS)
    client.headers["X-API-Key"] = "a"
    job_id = await submit(client)

    statuses = [
        (await client.get(EVENTS.format(job_id), headers={"X-API-Key": key})).status_code for key in ("b", "wrong")
    ]

    assert statuses == [404, 401]


async def test_waiting_clients_are_limited_for_each_client_and_in_total(
    app: FastAPI, client: httpx.AsyncClient, steps: Steps
) -> None:
    job_id = await submit(client)
    following = [asyncio.create_task(client.get(EVENTS.format(job_id))) for _ in range(3)]
    await waited(app, 3)
    one_too_many = await client.get(EVENTS.format(job_id))
    others = [
        httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(f"192.0.2.{n}", 1)), base_url="http://test")
        for n in range(2)
    ]
    following.append(asyncio.create_task(others[0].get(EVENTS.format(job_id))))
    await waited(app, 4)
    no_room = await others[1].get(EVENTS.format(job_id))
    steps.complete(job_id)

    assert [(await task).status_code for task in following] == [200] * 4
    for refused in (one_too_many, no_room):
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_waiters")
        assert refused.headers["retry-after"] == "5"
    assert (await client.get(EVENTS.format(job_id))).status_code == 200
    for other in others:
        await other.aclose()


async def test_stream_ends_when_the_process_is_about_to(app: FastAPI, client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    following = asyncio.create_task(client.get(EVENTS.format(job_id)))
    await waited(app, 1)

    app.state.services.waiting_room.dismiss()

    assert [body["status"] for _, body in read_events((await following).text)] == ["PENDING"]
    assert len(app.state.services.waiting_room) == 0


async def test_outage_refuses_a_new_stream(client: httpx.AsyncClient, redis_server: FakeServer) -> None:
    redis_server.connected = False

    answer = await client.get(EVENTS.format(uuid4()))

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
