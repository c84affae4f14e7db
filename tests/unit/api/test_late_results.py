"""Results that come into the cache, or leave it, while an image is being accepted: alone and in a batch."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis
from prometheus_client import REGISTRY

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.scripts import jobs
from support.announcements import MODEL, QUEUE_KEY, announce, cache_result, make_result
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

LATE, OTHER = make_png(1), make_png(2)
LOOKUP = jobs.find_result(MODEL.id, "0" * 64).script.digest


Step = Callable[[], Awaitable[Any]]


class InterruptedRedis(FakeRedis):
    """Calls the next of these steps before and after each lookup of a result."""

    before: list[Step]
    after: list[Step]

    async def evalsha(self, digest: str, *words: Any) -> Any:
        is_lookup = digest == LOOKUP
        if is_lookup and self.before:
            await self.before.pop(0)()
        answer = await super().evalsha(digest, *words)
        if is_lookup and self.after:
            await self.after.pop(0)()
        return answer


@pytest.fixture
async def redis(redis_server: FakeServer) -> FakeRedis:
    redis = InterruptedRedis(server=redis_server)
    redis.before, redis.after = [], []
    await redis.script_load(jobs.find_result(MODEL.id, "0" * 64).script.text)
    await announce(redis)
    return redis


@pytest.fixture
def cache(redis: FakeRedis) -> Step:
    return lambda: cache_result(redis, LATE, make_result())


@pytest.fixture
def forget(redis: FakeRedis) -> Step:
    return lambda: redis.delete(keys.result(image_digest(LATE)))


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("image_analysis_submissions_total", {"outcome": outcome}) or 0


async def nothing() -> None:
    pass


def batch(*images: bytes) -> dict[str, Any]:
    return {"images": [base64_body(image) for image in images]}


async def test_single_image_is_answered_by_a_result_that_came_after_the_lookup(
    client: httpx.AsyncClient, redis: InterruptedRedis, cache: Step
) -> None:
    cached, queued = count("cached"), count("queued")
    redis.after = [cache]

    answer = await client.post("/analyze-image", json=base64_body(LATE))

    status = (await client.get(f"/analysis-status/{answer.json()['job_id']}")).json()
    assert (answer.status_code, status["status"], status["cached"]) == (200, "COMPLETED", True)
    assert answer.json() == status
    assert not await redis.exists(QUEUE_KEY)
    assert (count("cached"), count("queued")) == (cached + 1, queued)


async def test_image_of_a_batch_is_queued_if_its_result_came_after_the_lookup(
    client: httpx.AsyncClient, redis: InterruptedRedis, cache: Step
) -> None:
    """A batch is accepted in one transaction, and a result that comes before it would need another one."""
    redis.after = [cache]

    answer = (await client.post("/analyze-images", json=batch(LATE, OTHER, b"no image"))).json()

    found = (await client.get(f"/analysis-batches/{answer['batch_id']}")).json()
    assert [job["status"] for job in answer["jobs"]] == ["PENDING", "PENDING", "FAILED"]
    assert [job["status"] for job in found["jobs"]] == ["PENDING", "PENDING", "FAILED"]
    assert await redis.lrange(QUEUE_KEY, 0, -1) == [job["job_id"].encode() for job in answer["jobs"][:2]]


async def test_image_whose_result_came_and_went_is_queued(
    client: httpx.AsyncClient, redis: InterruptedRedis, cache: Step, forget: Step
) -> None:
    redis.before, redis.after = [nothing, forget], [cache, cache]

    answer = await client.post("/analyze-image", json=base64_body(LATE))

    assert answer.status_code == 202
    assert await redis.lrange(QUEUE_KEY, 0, -1) == [answer.json()["job_id"].encode()]
