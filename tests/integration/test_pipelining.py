"""Commands of concurrent requests share round trips, but do not affect each other."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from image_analysis_api.store.client import TIMEOUT_S, connect
from image_analysis_api.store.pipelining import ALONE_BYTES, FULL_BYTES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


async def test_concurrent_commands_get_their_own_answers_over_one_connection(
    client: Redis, redis: BlockingRedis
) -> None:
    before = redis.info("stats")["total_connections_received"]

    answers = await asyncio.gather(*(client.echo(f"{n}") for n in range(200)))

    assert answers == [b"%d" % n for n in range(200)]
    assert redis.info("stats")["total_connections_received"] - before == 1


async def test_commands_that_fill_a_round_trip_share_two_connections(client: Redis, redis: BlockingRedis) -> None:
    before = redis.info("stats")["total_connections_received"]
    texts = [b"%d" % n * (8 * FULL_BYTES // 100) for n in range(10, 100)]

    answers = await asyncio.gather(*map(client.echo, texts))

    assert answers == texts
    assert redis.info("stats")["total_connections_received"] - before == 2


async def test_failing_command_leaves_its_neighbors_alone(client: Redis) -> None:
    commands: list[Awaitable[object]] = [client.execute_command("HGETALL"), client.echo("still there")]

    wrong, right = await asyncio.gather(*commands, return_exceptions=True)

    assert isinstance(wrong, ResponseError)
    assert right == b"still there"


async def test_given_up_command_leaves_its_neighbors_alone(client: Redis) -> None:
    given_up, kept = asyncio.ensure_future(client.echo("a")), asyncio.ensure_future(client.echo("b"))
    await asyncio.sleep(0)

    given_up.cancel()

    assert await kept == b"b"


async def test_command_that_was_given_up_before_its_round_trip_is_never_sent(
    client: Redis, redis: BlockingRedis
) -> None:
    await client.ping()
    running, given_up = asyncio.ensure_future(client.echo("a")), asyncio.ensure_future(client.set("key", "value"))
    await asyncio.sleep(0)

    given_up.cancel()
    await asyncio.gather(running, given_up, return_exceptions=True)

    assert await client.echo("later") == b"later"
    assert redis.get("key") is None


async def test_large_command_does_not_delay_others(client: Redis, redis: BlockingRedis) -> None:
    before = redis.info("stats")["total_connections_received"]

    large, small = await asyncio.gather(client.echo(b"x" * (ALONE_BYTES + 1)), client.echo("small"))

    assert (len(large), small) == (ALONE_BYTES + 1, b"small")
    assert redis.info("stats")["total_connections_received"] - before == 2


async def test_all_that_wait_for_a_hung_redis_fail_together(client: Redis, redis: BlockingRedis) -> None:
    await client.ping()
    redis.client_pause(round(TIMEOUT_S * 2000))
    started_s = time.monotonic()

    first = asyncio.ensure_future(client.get("a"))
    await asyncio.sleep(0.01)
    large = (client.echo(b"x" * ALONE_BYTES) for _ in range(20))
    answers = await asyncio.gather(first, *large, *(client.get("b") for _ in range(300)), return_exceptions=True)

    assert all(isinstance(answer, RedisError) for answer in answers)
    assert time.monotonic() - started_s < TIMEOUT_S * 2.5
    redis.client_unpause()
    assert await client.echo("back") == b"back"
