"""The API's Redis client; the one place that translates Redis's errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from image_analysis_api.store.pipelining import PipeliningRedis
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.scripts.source import ScriptCall
from image_analysis_common.versions import check_redis_version

TIMEOUT_S = 0.8
"""An outage is an answer in under a second; redis-py would retry for 4 s on a refused port, 59 s on a hung peer."""

MAX_CONNECTIONS = 100
"""More calls than this at once wait for one another, for `TIMEOUT_S` at most; redis-py's own pool would refuse them."""


def connect(dsn: str) -> Redis:
    """Make a client that fails fast and never retries; it connects when it is first used."""
    pool = BlockingConnectionPool.from_url(
        dsn,
        max_connections=MAX_CONNECTIONS,
        protocol=2,  # even a Redis that is too old can say so
        timeout=TIMEOUT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return PipeliningRedis.from_pool(pool)


@asynccontextmanager
async def reaching_redis() -> AsyncIterator[None]:
    """Turn whatever Redis's client raises into `StoreUnavailable`, with the cause behind it.

    The client bounds each step of a call, such as connecting; this bounds all of them together, by `TIMEOUT_S` too.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error


async def run_script(redis: Redis, call: ScriptCall) -> Any:
    """Run a script by its digest; load its text first where Redis does not know it yet.

    Raises:
        StoreUnavailable
    """
    async with reaching_redis():
        try:
            return await redis.evalsha(call.script.digest, *call.words)
        except NoScriptError:
            await redis.script_load(call.script.text)
            return await redis.evalsha(call.script.digest, *call.words)


def write_script(pipeline: Pipeline, call: ScriptCall) -> None:
    """Write a script into a pipeline: by its text, because nothing can be tried again there."""
    pipeline.eval(call.script.text, *call.words)


async def check_version(dsn: str) -> None:
    """Refuse a Redis that is too old.

    Raises:
        StartupError: it is.
        StoreUnavailable: it cannot be asked now.
    """
    redis = connect(dsn)
    async with reaching_redis():
        version = str((await redis.info("server"))["redis_version"])
        await redis.aclose()
    check_redis_version(version)
