"""The API's Redis client; the only module that translates Redis's errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from image_analysis_api.store.pipelining import ALONE_BYTES, PipeliningRedis
from image_analysis_api.store.sentinel import connect_to_primary, make_pool
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.scripts.source import ScriptCall
from image_analysis_common.settings import Sentinels
from image_analysis_common.versions import check_redis_version, refused_by_redis

TIMEOUT_S = 0.8
"""An outage is answered within a second; redis-py would retry a refused port for 4 s, and a hung peer for 59 s."""

MAX_CONNECTIONS = 100
"""Further calls wait for a free connection, at most `TIMEOUT_S`; redis-py's default pool would refuse them."""


def connect(dsn: str, sentinels: Sentinels | None = None) -> Redis:
    """Make a client that fails fast and never retries. It connects at its first use."""
    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "protocol": 2,  # an outdated Redis understands it too, so its version can be read
        "timeout": TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    pool = make_pool(dsn, sentinels, options) if sentinels else BlockingConnectionPool.from_url(dsn, **options)
    client = cast(PipeliningRedis, PipeliningRedis.from_pool(pool))
    client.timeout_s = TIMEOUT_S
    return client


def connect_blocking(dsn: str, sentinels: Sentinels | None, *, timeout_s: float) -> redis.Redis:
    """Make a client without asyncio, which never retries either."""
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": redis.retry.Retry(NoBackoff(), 0),
    }
    return connect_to_primary(dsn, sentinels, options) if sentinels else redis.Redis.from_url(dsn, **options)


@asynccontextmanager
async def reaching_redis() -> AsyncIterator[None]:
    """Raise `StoreUnavailable` from any error of the Redis client.

    The client's timeouts limit each step of a call, such as connecting. This limits all steps together to `TIMEOUT_S`.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error


def refuses_password(error: StoreUnavailable) -> bool:
    """Return whether Redis answered, but did not accept the user and password."""
    return isinstance(error.__cause__, AuthenticationError)


def may_have_run(error: StoreUnavailable) -> bool:
    """Return whether Redis may have run the commands, or may still get them: the answer is missing."""
    return isinstance(error.__cause__, (RedisConnectionError, RedisTimeoutError, OSError))


async def run_script(client: Redis, call: ScriptCall) -> Any:
    """Run a script by its digest; if Redis does not know it, load it first.

    A large argument is sent once, with the script's text: a second time could take longer than `TIMEOUT_S` allows.

    Raises:
        StoreUnavailable
    """
    started_s = asyncio.get_running_loop().time()
    try:
        try:
            # `connect` limits the time of one command.
            if any(isinstance(word, bytes) and len(word) > ALONE_BYTES for word in call.args):
                return await client.eval(call.script.text, *call.words)
            return await client.evalsha(call.script.digest, *call.words)
        except NoScriptError:
            async with asyncio.timeout_at(started_s + TIMEOUT_S):
                await client.script_load(call.script.text)
                return await client.evalsha(call.script.digest, *call.words)
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error


def write_script(pipeline: Pipeline, call: ScriptCall) -> None:
    """Add a script to a pipeline, by its text: a pipeline cannot load it and try again."""
    pipeline.eval(call.script.text, *call.words)


async def check_redis(dsn: str, sentinels: Sentinels | None = None) -> None:
    """Check that Redis accepts this service and is new enough.

    Raises:
        StartupError: it does not, or is too old.
        StoreUnavailable: Redis cannot be reached.
    """
    client = connect(dsn, sentinels)
    try:
        async with reaching_redis():
            hello = await client.execute_command("HELLO")
    except StoreUnavailable as error:
        match error.__cause__:
            case ResponseError() as cause if "unknown command" in str(cause):
                hello = []
            case (AuthenticationError() | ResponseError()) as cause:
                raise refused_by_redis(cause) from error
            case _:
                raise
    finally:
        await client.aclose()
    check_redis_version(hello)
