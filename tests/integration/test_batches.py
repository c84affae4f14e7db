"""A batch is written to a real Redis in one transaction, or not at all."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.asyncio import ConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from image_analysis_api.app import create_app
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from support.receivers import SECRET
from support.redis_server import run_redis
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

BODY = {"images": [base64_body(make_png(seed, size_px=(300, 200))) for seed in range(12)]}


class CutRedis(AsyncRedis):
    """Executes one transaction, whose answer it may lose, and none after it until it is mended."""

    loses_answer = False
    is_cut = False

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipeline = _CutPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.redis = self
        return pipeline


class _CutPipeline(Pipeline):
    redis: CutRedis

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if not self.is_transaction:
            return await super().execute(raise_on_error)
        if self.redis.is_cut:
            raise RedisConnectionError("Redis is gone.")
        answers = await super().execute(raise_on_error)
        self.redis.is_cut = True
        if self.redis.loses_answer:
            raise RedisConnectionError("The answer is lost.")
        return answers


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of its own: these tests count commands, and workers of other tests send some, too."""
    with run_redis(tmp_path_factory.mktemp("batches")) as server:
        yield server.url


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(redis_url) as redis:
        app = create_app(ApiSettings(rate_limit_max_requests=1000), redis=redis)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client


def calls(redis: Redis) -> dict[str, int]:
    stats: dict[str, dict[str, Any]] = redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()}


async def test_batch_is_queued_in_one_transaction(redis: Redis, client: httpx.AsyncClient) -> None:
    redis.config_resetstat()

    answer = await client.post("/analyze-images", json=BODY)

    assert answer.json()["counts"]["PENDING"] == 12
    assert (calls(redis)["exec"], calls(redis)["eval"]) == (1, 12 + 1)
    job_ids = [job["job_id"] for job in answer.json()["jobs"]]
    assert [redis.exists(keys.job(job_id), keys.image(job_id), f"rq:job:{job_id}") for job_id in job_ids] == [3] * 12


async def test_image_of_an_unknown_model_costs_one_script_each_for_its_quota_its_lookup_and_its_queuing(
    redis: Redis, client: httpx.AsyncClient
) -> None:
    await client.post("/analyze-image", json=BODY["images"][0])  # now Redis has cached the scripts
    redis.config_resetstat()

    answer = await client.post("/analyze-image", json=BODY["images"][1])

    assert answer.status_code == 202
    assert calls(redis)["evalsha"] == 3
    assert calls(redis).keys().isdisjoint({"eval", "multi", "exec"})


async def test_full_redis_accepts_nothing_of_a_batch(redis: Redis, client: httpx.AsyncClient) -> None:
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + 50_000)
    try:
        answer = await client.post("/analyze-images", json=BODY)
        left = [key.decode() for key in redis.scan_iter("*") if not key.startswith(b"rate_limit:")]
    finally:
        redis.config_set("maxmemory", 0)

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert left == []


@pytest.mark.parametrize("loses_answer", [False, True])
async def test_batch_that_is_repeated_after_an_interruption_has_all_its_jobs(
    redis: Redis, redis_url: str, loses_answer: bool
) -> None:
    body, key = BODY | {"webhook_url": "https://hook.test/"}, {"Idempotency-Key": "order-7"}
    settings = ApiSettings(rate_limit_max_requests=1000, max_queue_depth=5, webhook_secret=(SECRET,))
    async with aclosing(ConnectionPool.from_url(redis_url)) as pool:
        client = CutRedis(connection_pool=pool)
        client.loses_answer = loses_answer
        app = create_app(settings, redis=client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            first = await http.post("/analyze-images", json=body, headers=key)
            client.is_cut = client.loses_answer = False
            again = await http.post("/analyze-images", json=body, headers=key)

    failed = [job["job_id"] for job in again.json()["jobs"] if job["status"] == "FAILED"]
    assert (first.status_code, again.status_code) == (503 if loses_answer else 202, 202)
    assert (again.json()["counts"]["PENDING"], len(failed)) == (5, 7)
    assert set(redis.zrange(keys.DELIVERIES, 0, -1)) == {job_id.encode() for job_id in failed}
