"""GET /analysis-status/{job_id} and the health calls."""

from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_common import keys
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio


async def test_fresh_job_is_pending(client: httpx.AsyncClient) -> None:
    job_id = (await client.post("/analyze-image", json=base64_body(make_png()))).json()["job_id"]

    answer = await client.get(f"/analysis-status/{job_id}")

    assert answer.status_code == 200
    assert answer.json() == {
        "job_id": job_id,
        "status": "PENDING",
        "result": None,
        "error": None,
        "cached": False,
        "processing_time_ms": None,
        "queue_position": 1,
    }


async def test_failed_job_says_why(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    job_id, failure = str(uuid4()), JobFailure(code="corrupt_image", detail="The image is damaged.")
    record = JobRecord(status=JobStatus.FAILED, image_hash="0" * 64, error=failure)
    await redis.hset(keys.job(job_id), mapping=record.to_hash())

    body = (await client.get(f"/analysis-status/{job_id}")).json()

    assert (body["status"], body["result"], body["error"]) == ("FAILED", None, failure.model_dump())


async def test_unknown_job_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/analysis-status/{uuid4()}")

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("job_id", ["7", "not-a-uuid", "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7", "%00", "*"])
async def test_malformed_job_id_is_400(client: httpx.AsyncClient, job_id: str) -> None:
    answer = await client.get(f"/analysis-status/{job_id}")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/health", "/health/live"])
async def test_process_is_healthy_without_redis(client: httpx.AsyncClient, redis_server: FakeServer, path: str) -> None:
    redis_server.connected = False

    answer = await client.get(path)

    assert (answer.status_code, answer.json()["status"], set(answer.json())) == (
        200,
        "healthy",
        {"status", "timestamp"},
    )


async def test_service_is_ready_while_a_worker_sends_heartbeats(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    now_s, _ = await redis.time()
    await redis.zadd(keys.workers("vit-tiny-cifar10"), {"old": now_s - 3600, "fresh": now_s - 5})

    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()["status"], answer.json()["model"]) == (200, "ready", "vit-tiny-cifar10")


async def test_service_is_not_ready_after_its_last_worker(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    now_s, _ = await redis.time()
    await redis.zadd(keys.workers("vit-tiny-cifar10"), {"gone": now_s - 12})

    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "no_worker", "5")


@pytest.mark.parametrize("path", ["/health/ready", "/analysis-status/3f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"])
async def test_outage_is_503_with_the_reason(client: httpx.AsyncClient, redis_server: FakeServer, path: str) -> None:
    redis_server.connected = False

    answer = await client.get(path)

    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "store_unavailable", "5")
