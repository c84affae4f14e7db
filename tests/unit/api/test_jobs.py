"""DELETE /analysis/{job_id} and GET /analyses."""

from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeRedis as SyncRedis
from fakeredis import FakeServer

from support.fakes import MakeClient
from support.samples import base64_body, make_png
from support.steps import Steps

pytestmark = pytest.mark.anyio

API_KEYS = f"alice:{sha256(b'a').hexdigest()},bob:{sha256(b'b').hexdigest()}"


@pytest.fixture
def steps(redis_server: FakeServer) -> Steps:
    return Steps(SyncRedis(server=redis_server))


@pytest.fixture
async def alice(make_client: MakeClient) -> httpx.AsyncClient:
    client = await make_client(api_keys=API_KEYS)
    client.headers["X-API-Key"] = "a"
    return client


async def submit(client: httpx.AsyncClient, seed: int = 0, key: str = "a") -> str:
    answer = await client.post("/analyze-image", json=base64_body(make_png(seed)), headers={"X-API-Key": key})
    return str(answer.json()["job_id"])


async def list_jobs(client: httpx.AsyncClient, **query: str | int) -> list[str]:
    body = (await client.get("/analyses", params=query)).raise_for_status().json()
    return [entry["job_id"] for entry in body["analyses"]]


async def test_waiting_job_is_cancelled_and_stays_so(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)

    answers = [await client.delete(f"/analysis/{job_id}") for _ in range(2)]
    status = await client.get(f"/analysis-status/{job_id}")

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, status.json())] * 2
    assert status.json() == {
        "job_id": job_id,
        "status": "CANCELLED",
        "result": None,
        "error": None,
        "cached": False,
        "processing_time_ms": None,
    }


async def test_running_job_is_accepted_to_be_cancelled(client: httpx.AsyncClient, steps: Steps) -> None:
    job_id = await submit(client)
    steps.begin(job_id)

    answer = await client.delete(f"/analysis/{job_id}")
    meanwhile = (await client.get(f"/analysis-status/{job_id}")).json()
    steps.complete(job_id)

    assert (answer.status_code, answer.json()["status"], meanwhile["status"]) == (202, "PROCESSING", "PROCESSING")
    assert (await client.get(f"/analysis-status/{job_id}")).json()["status"] == "CANCELLED"


async def test_ended_job_is_forgotten(client: httpx.AsyncClient, steps: Steps) -> None:
    job_id = await submit(client)
    steps.complete(job_id)

    answers = [await client.delete(f"/analysis/{job_id}") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 404]
    assert (await client.get(f"/analysis-status/{job_id}")).status_code == 404


async def test_waiting_clients_are_notified_of_a_cancellation(client: httpx.AsyncClient) -> None:
    job_id = await submit(client)
    await client.delete(f"/analysis/{job_id}")

    events = (await client.get(f"/analysis-status/{job_id}/events")).text

    assert [line.partition('"status":')[2][:11] for line in events.splitlines() if line.startswith("data")] == [
        '"PENDING","',
        '"CANCELLED"',
    ]


@pytest.mark.parametrize(("job_id", "status"), [(uuid4(), 404), ("7", 400)])
async def test_refusals_are_those_of_the_status(client: httpx.AsyncClient, job_id: object, status: int) -> None:
    assert (await client.delete(f"/analysis/{job_id}")).status_code == status


async def test_other_owners_cannot_cancel_a_job(alice: httpx.AsyncClient) -> None:
    job_id = await submit(alice)

    others = [
        (await alice.delete(f"/analysis/{job_id}", headers={"X-API-Key": key})).status_code for key in ("b", "wrong")
    ]

    assert others == [404, 401]
    assert (await alice.get(f"/analysis-status/{job_id}")).json()["status"] == "PENDING"


async def test_list_has_the_callers_own_jobs_with_their_status(alice: httpx.AsyncClient, steps: Steps) -> None:
    waiting, ended = await submit(alice, 1), await submit(alice, 2)
    follower = await submit(alice, 1)
    await submit(alice, 1, key="b")
    steps.complete(ended)
    body: dict[str, Any] = (await alice.get("/analyses")).json()

    listed = {entry.pop("job_id"): entry for entry in body["analyses"]}

    assert set(listed) == {waiting, ended, follower}
    assert body["next_cursor"] is None
    assert listed[ended].pop("submitted_at")
    status = (await alice.get(f"/analysis-status/{ended}")).json()
    assert {"job_id": ended, **listed[ended]} == status


async def test_list_is_read_by_status_and_page_by_page(alice: httpx.AsyncClient, steps: Steps) -> None:
    jobs = [await submit(alice, seed) for seed in range(5)]
    for job_id in jobs[:2]:
        steps.complete(job_id)

    first = (await alice.get("/analyses", params={"limit": 3})).json()
    rest = await list_jobs(alice, limit=3, cursor=first["next_cursor"])

    assert sorted([entry["job_id"] for entry in first["analyses"]] + rest) == sorted(jobs)
    assert sorted(await list_jobs(alice, status="COMPLETED")) == sorted(jobs[:2])
    assert await list_jobs(alice, status="CANCELLED") == []


async def test_forgotten_and_expired_jobs_are_not_listed(alice: httpx.AsyncClient, steps: Steps) -> None:
    forgotten, cancelled = await submit(alice, 1), await submit(alice, 2)
    steps.complete(forgotten)
    for job_id in (forgotten, cancelled):
        await alice.delete(f"/analysis/{job_id}")

    assert await list_jobs(alice) == [cancelled]


async def test_without_keys_there_is_no_list(client: httpx.AsyncClient) -> None:
    answer = await client.get("/analyses")

    assert (answer.status_code, answer.json()["code"]) == (403, "keys_required")
    assert "API_KEYS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=",
        "limit=1000000000000",
        "status=DONE",
        "status=",
        "cursor=",
        "cursor=%00",
    ],
)
async def test_malformed_query_is_400(alice: httpx.AsyncClient, query: str) -> None:
    answer = await alice.get(f"/analyses?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
