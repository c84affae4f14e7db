"""One request of many claims an Idempotency-Key, on a fake Redis and on a real one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from fakeredis.aioredis import FakeRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.requests import Request

from image_analysis_api.access.idempotency import Idempotency
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.errors import IdempotencyKeyReused, RequestInProgress, StoreUnavailable

pytestmark = pytest.mark.anyio

REQUEST = Request({"type": "http", "headers": [(b"idempotency-key", b"order-7")], "client": ("192.0.2.1", 1)})


@pytest.fixture(params=["fake", "real"])
async def client(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with FakeRedis(max_connections=500) if request.param == "fake" else connect(redis_url) as client:
        yield client


class Intake:
    """Accepts requests as the API does: it writes a record under the new ID, or raises an error."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._idempotency = Idempotency(client, busy_s=5)
        self.fails_before = self.fails_after = False
        self.cause: Exception = ResponseError("OOM")

    async def send(self, body: str = "body") -> tuple[str, UUID]:
        async def fingerprint() -> str:
            return body

        async with self._idempotency.claim(REQUEST, None, keys.job(""), fingerprint) as claim:
            return ("replayed", claim.id) if claim.is_replay else await self._accept(claim.id)

    async def _accept(self, job_id: UUID) -> tuple[str, UUID]:
        if self.fails_before:
            raise StoreUnavailable("before") from self.cause
        await self._client.set(keys.job(str(job_id)), "record", ex=60)
        if self.fails_after:
            raise StoreUnavailable("after") from self.cause
        return "accepted", job_id


async def test_one_of_many_at_once_is_accepted_and_the_others_wait_or_get_its_job(client: Redis) -> None:
    intakes = [Intake(client) for _ in range(2)]

    answers = await asyncio.gather(*(intakes[n % 2].send() for n in range(100)), return_exceptions=True)

    outcomes = Counter(answer[0] if isinstance(answer, tuple) else type(answer) for answer in answers)
    assert outcomes.keys() <= {"accepted", "replayed", RequestInProgress}
    assert outcomes["accepted"] == 1
    assert len({answer[1] for answer in answers if isinstance(answer, tuple)}) == 1
    with pytest.raises(IdempotencyKeyReused):
        await intakes[0].send("another body")


async def test_key_is_free_after_a_failure_and_kept_if_the_job_exists(client: Redis) -> None:
    intake = Intake(client)
    intake.fails_before = True
    with pytest.raises(StoreUnavailable, match="before"):
        await intake.send()
    intake.fails_before, intake.fails_after = False, True
    with pytest.raises(StoreUnavailable, match="after"):
        await intake.send()

    assert (await intake.send())[0] == "replayed"


@pytest.mark.parametrize("cause", [RedisConnectionError(), RedisTimeoutError(), TimeoutError()])
async def test_key_is_kept_if_redis_may_still_get_the_job(client: Redis, cause: Exception) -> None:
    intake = Intake(client)
    intake.fails_before, intake.cause = True, cause
    with pytest.raises(StoreUnavailable):
        await intake.send()
    intake.fails_before = False

    with pytest.raises(RequestInProgress):
        await intake.send()
