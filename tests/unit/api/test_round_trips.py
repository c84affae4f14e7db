"""A submission waits for Redis once. Its request is counted by the same script, and before a large body is read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_api.access.admission import SMALL_BODY_BYTES
from image_analysis_api.store.pipelining import ALONE_BYTES
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from support.announcements import MODEL, announce, cache_result, make_result
from support.fakes import FakeFetcher, MakeClient
from support.samples import base64_body, make_png
from support.waiting import eventually

pytestmark = pytest.mark.anyio

CLIENT = keys.rate_limit("198.51.100.7")
JSON = {"Content-Type": "application/json"}


class CountingRedis(FakeRedis):
    """Counts the scripts that it runs, each of which is a round trip, and the commands with much data."""

    scripts = 0
    large_commands = 0

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        self.large_commands += any(isinstance(word, bytes) and len(word) > ALONE_BYTES for word in words)
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    async def evalsha(self, digest: str, *words: Any) -> Any:
        self.scripts += 1
        return await super().evalsha(digest, *words)


@pytest.fixture
async def redis(redis_server: FakeServer) -> CountingRedis:
    redis = CountingRedis(server=redis_server)
    await announce(redis)
    return redis


async def submit(client: httpx.AsyncClient, seed: int, **options: Any) -> httpx.Response:
    return await client.post("/analyze-image", json=base64_body(make_png(seed)) | options)


async def drip(parts: list[bytes], may_end: asyncio.Event) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await may_end.wait()


async def test_submission_takes_one_round_trip_once_the_model_is_known(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    scripts = []
    for seed, options in ((1, {}), (1, {}), (2, {"top_k": 50})):
        redis.scripts = 0
        assert (await submit(client, seed, **options)).status_code == 202
        scripts.append(redis.scripts)

    assert scripts[:2] == [1, 1]  # the second one follows the first one's run
    assert scripts[2] == 1
    assert await redis.llen(CLIENT) == 4


async def test_large_image_is_sent_once_to_a_redis_that_does_not_know_the_script(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    image = make_png().ljust(ALONE_BYTES + 1, b"\0")

    accepted = [await client.post("/analyze-image", json=base64_body(image + bytes(extra))) for extra in range(2)]

    assert [answer.status_code for answer in accepted] == [202, 202]
    assert redis.large_commands == 2


async def test_first_cached_answer_takes_two_round_trips_the_next_one_and_a_status_one(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    await cache_result(redis, make_png(2), make_result())
    first = await submit(client, 1)  # loads the scripts
    await client.get(f"/analysis-status/{first.json()['job_id']}")

    scripts = []
    for seed in (2, 2):
        redis.scripts = 0
        hit = await submit(client, seed)
        scripts.append(redis.scripts)
    redis.scripts = 0
    status = await client.get(f"/analysis-status/{hit.json()['job_id']}")

    assert (hit.status_code, scripts, redis.scripts) == (200, [2, 1], 1)
    assert status.json() == hit.json()
    assert hit.json()["cached"]
    assert status.headers["ratelimit"].startswith('"default";r=996;')


async def test_image_whose_cached_result_is_gone_is_queued_once(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    first, second = await submit(client, 1), await submit(client, 1)
    await redis.delete(keys.result(image_digest(make_png(1))))

    redis.scripts = 0
    third, fourth = await submit(client, 1), await submit(client, 1)

    assert [answer.status_code for answer in (first, second, third, fourth)] == [200, 200, 202, 202]
    assert redis.scripts == 2 + 1
    assert (await redis.lrange(f"rq:queue:analysis-{MODEL.id}", 0, -1))[1:] == [third.json()["job_id"].encode()]
    assert await redis.get(keys.image(third.json()["job_id"])) == make_png(1)
    assert await redis.llen(CLIENT) == 5


async def test_popular_image_is_answered_by_the_result_that_is_cached_now(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    popular = [await submit(client, 1) for _ in range(2)]
    await cache_result(redis, make_png(1), make_result(3))
    others = [await submit(client, 1) for _ in range(2)]
    deep = await submit(client, 1, top_k=10)

    redis.scripts = 0
    trimmed = await submit(client, 1, top_k=1)

    lengths = [len(answer.json()["result"]["predictions"]) for answer in (*popular, *others, trimmed)]
    assert lengths == [*[len(make_result().predictions)] * 2, 3, 3, 1]
    assert (deep.status_code, redis.scripts) == (202, 1)
    assert await redis.get(keys.answered(image_digest(make_png(1)))) == b"5"


async def test_popular_image_of_a_client_without_a_request_left_is_refused(
    make_client: MakeClient, redis: CountingRedis
) -> None:
    client = await make_client(rate_limit_max_requests=4)
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    answers = [await submit(client, 1) for _ in range(2)]
    await redis.rpush(CLIENT, (await redis.time())[0] * 1_000_000)

    refused = await submit(client, 1)

    assert [answer.status_code for answer in (*answers, refused)] == [200, 200, 429]
    assert refused.headers["ratelimit"].startswith('"default";r=0;')
    assert len(await redis.keys(keys.job("*"))) == 3


async def test_usual_request_is_answered_by_a_deep_result_and_not_the_other_way_round(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result(10))
    await cache_result(redis, make_png(2), make_result())

    usual, deep = await submit(client, 1), await submit(client, 2, top_k=10)

    assert (usual.status_code, len(usual.json()["result"]["predictions"]), deep.status_code) == (200, 5, 202)


async def test_new_revision_of_the_model_never_gives_an_old_result(
    client: httpx.AsyncClient, redis: CountingRedis
) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    new = MODEL.model_copy(update={"revision": "r2"})
    await announce(redis, new)

    before = await submit(client, 1)
    await cache_result(redis, make_png(2), make_result(model=new))
    after = await submit(client, 2)

    assert (before.status_code, after.status_code) == (202, 200)
    assert after.json()["result"]["model"]["revision"] == "r2"
    assert await redis.llen(CLIENT) == 3


async def test_unreadable_cached_result_is_analyzed_again(client: httpx.AsyncClient, redis: CountingRedis) -> None:
    await submit(client, 0)
    await cache_result(redis, make_png(1), make_result())
    [key] = await redis.keys(keys.result("*"))
    await redis.hset(key, MODEL.cache_field, '{"of": "another release"}')

    assert (await submit(client, 1)).status_code == 202


async def test_client_whose_other_process_counted_is_refused_by_the_script_and_then_before_its_body(
    make_client: MakeClient, redis: CountingRedis
) -> None:
    client = await make_client(rate_limit_max_requests=3)
    await submit(client, 0)
    await redis.rpush(CLIENT, *[(await redis.time())[0] * 1_000_000] * 2)

    refused = await submit(client, 1)
    body = drip([], asyncio.Event())
    refused_unread = await client.post("/analyze-image", content=body, headers={**JSON, "Content-Length": "100"})

    assert [answer.status_code for answer in (refused, refused_unread)] == [429, 429]
    assert refused.headers["ratelimit"].startswith('"default";r=0;')
    assert await redis.llen(CLIENT) == 3
    assert await redis.llen(f"rq:queue:analysis-{MODEL.id}") == 1


async def test_large_body_is_counted_before_it_is_read(client: httpx.AsyncClient, redis: CountingRedis) -> None:
    may_end = asyncio.Event()
    small = drip([b"{"], may_end)
    large = drip([b"{"], may_end)

    waiting = [
        asyncio.create_task(
            client.post("/analyze-image", content=body, headers={**JSON, "Content-Length": str(size_bytes)})
        )
        for body, size_bytes in ((small, SMALL_BODY_BYTES), (large, SMALL_BODY_BYTES + 1))
    ]
    await eventually(lambda: redis.llen(CLIENT), "the large one is counted")
    counted = await redis.llen(CLIENT)
    may_end.set()
    codes = [(await answer).status_code for answer in waiting]

    assert (counted, codes) == (1, [400, 400])
    assert await redis.llen(CLIENT) == 2


async def test_no_client_has_more_uncounted_bodies_under_way_than_requests(
    make_client: MakeClient, redis: CountingRedis
) -> None:
    client, may_end = await make_client(rate_limit_max_requests=2), asyncio.Event()

    waiting = [
        asyncio.create_task(
            client.post("/analyze-image", content=drip([b"{"], may_end), headers={**JSON, "Content-Length": "9"})
        )
        for _ in range(4)
    ]
    await eventually(lambda: redis.llen(CLIENT), "the third one is counted")
    may_end.set()
    codes = sorted([(await answer).status_code for answer in waiting])

    assert codes == [400, 400, 429, 429]
    assert await redis.llen(CLIENT) == 2


async def test_image_is_fetched_only_for_a_request_that_is_counted(
    make_client: MakeClient, redis: CountingRedis, fetcher: FakeFetcher
) -> None:
    client = await make_client(rate_limit_max_requests=1)
    fetcher.answers["http://x.example/"] = make_png(1)

    answers = [await client.post("/analyze-image", json={"image_url": "http://x.example/"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 429]
    assert fetcher.clients == ["198.51.100.7"]


async def test_status_of_an_unknown_job_says_how_many_requests_are_left(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/analysis-status/{uuid4()}")

    assert (answer.status_code, answer.headers["ratelimit"]) == (404, '"default";r=1000;t=0')
