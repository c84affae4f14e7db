"""The behavior of the API's parts, on the unit tests' fake Redis and on a real one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from fakeredis.aioredis import FakeRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from image_analysis_api.access.rate_limit import RateLimiter, Verdict
from image_analysis_api.jobs.queue import NewJob, ResultCached
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.errors import QueueFull, StoreUnavailable
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.direct import DirectQueue

pytestmark = pytest.mark.anyio
PENDING = JobRecord(status=JobStatus.PENDING, image_hash="0" * 64)
CLIENT = keys.rate_limit("192.0.2.1")


@pytest.fixture(params=["fake", "real"])
async def client(request: pytest.FixtureRequest, redis: SyncRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with FakeRedis(max_connections=500) if request.param == "fake" else connect(redis_url) as client:
        yield client


async def now_us(client: Redis) -> int:
    seconds, microseconds = await client.time()
    return seconds * 1_000_000 + microseconds


async def test_exactly_the_limit_is_admitted_of_many_at_once(client: Redis) -> None:
    limiters = [RateLimiter(client, max_requests=5, interval_s=60) for _ in range(2)]

    verdicts = await asyncio.gather(*(limiters[n % 2].admit(CLIENT) for n in range(200)))

    assert sum(verdict is not None and verdict.is_admitted for verdict in verdicts) == 5
    assert await limiters[0].admit(keys.rate_limit("192.0.2.2")) == Verdict(is_admitted=True, remaining=4, reset_s=60)


async def test_window_slides_and_says_truly_when_there_is_room(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=2, interval_s=60)
    now = await now_us(client)
    await client.rpush(CLIENT, now - 60_000_001, now - 30_000_000, now - 10_000_000)

    full = await limiter.admit(CLIENT)
    await client.lset(CLIENT, 0, str(await now_us(client) - 60_000_000))
    room = await limiter.admit(CLIENT)

    assert full == Verdict(is_admitted=False, remaining=0, reset_s=30)
    assert room == Verdict(is_admitted=True, remaining=0, reset_s=50)
    assert 59_000 < await client.pttl(CLIENT) <= 60_000


async def test_refusal_counts_no_request_that_has_left_the_window(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=2, interval_s=60)
    now = await now_us(client)
    await client.rpush(CLIENT, now - 62_000_000, now - 61_000_000, now - 30_000_000, now - 10_000_000)
    await client.expire(CLIENT, 60)

    first = await limiter.admit(CLIENT, 2)
    left = await client.llen(CLIENT)
    await client.lset(CLIENT, 0, str(now - 60_000_001))
    await client.lset(CLIENT, 1, str(now - 60_000_000))
    above = await limiter.admit(CLIENT, 3)

    assert first == Verdict(is_admitted=False, remaining=0, reset_s=50)
    assert above == Verdict(is_admitted=False, remaining=2, reset_s=0)
    assert (left, await client.exists(CLIENT)) == (2, 0)


async def test_clock_that_was_set_back_locks_no_client_out(client: Redis) -> None:
    await client.rpush(CLIENT, await now_us(client) + 3_600_000_000)
    await client.expire(CLIENT, 60)

    verdict = await RateLimiter(client, max_requests=1, interval_s=60).admit(CLIENT)

    assert verdict == Verdict(is_admitted=True, remaining=0, reset_s=60)


async def test_cost_of_zero_only_checks(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=1, interval_s=60)

    assert [await limiter.admit(CLIENT, 0) for _ in range(3)] == [Verdict(True, 1, 0)] * 3
    assert not await client.exists(CLIENT)


async def test_refusal_of_several_says_when_there_is_room_for_all_of_them_and_costs_nothing(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=3, interval_s=60)
    now = await now_us(client)
    await client.rpush(CLIENT, now - 40_000_000, now - 20_000_000)

    first = await limiter.admit(CLIENT, 2)
    counted = await limiter.admit(CLIENT)
    assert counted
    again = await limiter.admit(CLIENT, 3, instead_us=counted.counted_us)
    last = await limiter.admit(CLIENT)
    none_left = await limiter.admit(CLIENT)

    verdicts = [first, counted, again, last, none_left]
    assert [verdict and (verdict.is_admitted, verdict.remaining, verdict.reset_s) for verdict in verdicts] == [
        (False, 1, 20),
        (True, 0, 20),
        (False, 1, 40),
        (True, 0, 20),
        (False, 0, 20),
    ]
    assert await client.llen(CLIENT) == 3


async def test_request_that_is_counted_again_replaces_its_own_count_and_no_other(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=3, interval_s=60)
    counted = await limiter.admit(CLIENT)
    assert counted is not None
    later = await limiter.admit(CLIENT)
    assert later is not None

    refused = await limiter.admit(CLIENT, 3, instead_us=counted.counted_us)
    assert await client.lrange(CLIENT, 0, -1) == [str(later.counted_us).encode()]
    admitted = await limiter.admit(CLIENT, 2, instead_us=later.counted_us)
    outlasted = await limiter.admit(CLIENT, 2, instead_us=counted.counted_us)

    assert refused == Verdict(is_admitted=False, remaining=2, reset_s=60)
    assert admitted == Verdict(is_admitted=True, remaining=1, reset_s=60)
    assert outlasted == Verdict(is_admitted=False, remaining=1, reset_s=60)


async def test_check_is_never_refused_after_the_limit_was_lowered(client: Redis) -> None:
    await RateLimiter(client, max_requests=5, interval_s=60).admit(CLIENT, 5)

    verdict = await RateLimiter(client, max_requests=2, interval_s=60).admit(CLIENT, 0)

    assert verdict == Verdict(is_admitted=True, remaining=0, reset_s=60)


async def test_check_needs_no_writes(redis: SyncRedis, redis_url: str) -> None:
    async with connect(redis_url) as client:
        now = await now_us(client)
        await client.rpush(CLIENT, now - 60_000_001, now - 60_000_000, now - 10_000_000)
        await client.expire(CLIENT, 60)
        redis.config_set("min-replicas-to-write", 1)

        verdict = await RateLimiter(client, max_requests=5, interval_s=60).admit(CLIENT, 0)

        redis.config_set("min-replicas-to-write", 0)
    assert verdict == Verdict(is_admitted=True, remaining=4, reset_s=50)


async def test_error_of_the_limit_itself_refuses_or_admits_as_configured(client: Redis) -> None:
    await client.set(CLIENT, "no list", ex=60)

    with pytest.raises(StoreUnavailable):
        await RateLimiter(client, max_requests=5, interval_s=60).admit(CLIENT)
    assert await RateLimiter(client, max_requests=5, interval_s=60, is_fail_open=True).admit(CLIENT) is None


async def test_hanging_redis_is_an_outage_however_the_limit_fails(redis: SyncRedis, redis_url: str) -> None:
    server = redis.info("server")["process_id"]
    async with connect(redis_url) as client:
        os.kill(server, signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable):
                await RateLimiter(client, max_requests=5, interval_s=60, is_fail_open=True).admit(CLIENT)
        finally:
            os.kill(server, signal.SIGCONT)


async def test_redis_that_is_slow_at_every_step_is_an_outage() -> None:
    has_ended = asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            await asyncio.sleep(0.5)  # within the limit of one step
            writer.write(b"+OK\r\n")
        writer.close()
        has_ended.set()

    async with await asyncio.start_server(answer_late, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        async with connect(f"redis://{host}:{port}/0") as client:
            with pytest.raises(StoreUnavailable) as outage:
                await RateLimiter(client, max_requests=5, interval_s=60).admit(CLIENT)
        await has_ended.wait()

    assert isinstance(outage.value.__cause__, TimeoutError)


async def test_job_image_and_record_are_queued_together(client: Redis) -> None:
    job_id = uuid4()

    await DirectQueue(client, "m").enqueue(NewJob(job_id, b"image", PENDING, request_id="r"))

    assert await client.lrange("rq:queue:analysis-m", 0, -1) == [str(job_id).encode()]
    assert await client.smembers("rq:queues") == {b"rq:queue:analysis-m"}
    assert await client.get(keys.image(str(job_id))) == b"image"
    assert await JobRecords(client, "m").find_record(job_id) == PENDING


async def test_same_image_in_flight_is_queued_once_and_shared(client: Redis) -> None:
    leader, follower, queue = uuid4(), uuid4(), DirectQueue(client, "m")

    first = await queue.enqueue(NewJob(leader, b"image", PENDING, request_id="r"))
    await client.hset(keys.job(str(leader)), "status", JobStatus.PROCESSING)
    second = await queue.enqueue(NewJob(follower, b"image", PENDING, request_id="r"))

    assert (first, second) == (None, leader)
    assert await client.llen("rq:queue:analysis-m") == 1
    assert not await client.exists(keys.image(str(follower)))
    shared = await JobRecords(client, "m").find_record(follower)
    assert shared == PENDING.model_copy(update={"status": JobStatus.PROCESSING})
    assert await client.smembers(keys.followers(str(leader))) == {keys.job(str(follower)).encode()}


async def add_waiting(client: Redis, queue: DirectQueue, count: int, image: bytes = b"image") -> None:
    for n in range(count):
        record = PENDING.model_copy(update={"image_hash": f"{n:064x}"})
        await queue.enqueue(NewJob(uuid4(), image, record, request_id="r"))


async def test_full_queue_refuses_new_images_and_accepts_known_ones(client: Redis) -> None:
    queue, refused = DirectQueue(client, "m", max_depth=4), uuid4()
    await add_waiting(client, queue, 4)
    now_s = await now_us(client) // 1_000_000
    await client.zadd("rq:finished:analysis-m", {"lately": now_s + 600 - 50, "a minute ago": now_s + 600 - 61})
    await client.zadd("rq:failed:analysis-m", {"lately too": now_s + 3600 - 30, "and again": now_s + 3600 - 15})

    with pytest.raises(QueueFull, match="4 images wait") as full:
        await queue.enqueue(
            NewJob(refused, b"image", PENDING.model_copy(update={"image_hash": "f" * 64}), request_id="r")
        )

    assert full.value.retry_after_s in (34, 35)  # until two have ended, at three in 51 or 52 s
    assert await JobRecords(client, "m").find_record(refused) is None
    assert not await client.exists(keys.image(str(refused)), keys.leader("m", "f" * 64), f"rq:job:{refused}")
    assert await queue.enqueue(NewJob(uuid4(), b"image", PENDING, request_id="r"))


async def test_bytes_of_images_are_bounded_too(client: Redis) -> None:
    queue = DirectQueue(client, "m", max_bytes=10)
    await add_waiting(client, queue, 2, b"12345")

    with pytest.raises(QueueFull) as full:
        await add_waiting(client, DirectQueue(client, "m", max_bytes=14), 3, b"12345")

    assert full.value.retry_after_s == 60  # no job has ended recently
    assert await client.get(keys.image_bytes("m")) == b"10"


@pytest.mark.parametrize(("place", "counted"), [("nowhere", b"3"), ("popped", b"12"), ("running", b"12")])
async def test_count_of_bytes_restarts_when_nothing_waits_or_runs(client: Redis, place: str, counted: bytes) -> None:
    await client.set(keys.image_bytes("m"), 9, ex=60)
    if place == "popped":
        await client.rpush("rq:queue:analysis-m:intermediate", "job")
    elif place == "running":
        await client.zadd("rq:wip:analysis-m", {"job:execution": 1})

    await add_waiting(client, DirectQueue(client, "m"), 1, b"123")

    assert await client.get(keys.image_bytes("m")) == counted


async def test_follower_belongs_to_its_own_owner(client: Redis) -> None:
    submissions = {uuid4(): PENDING.model_copy(update={"owner": owner}) for owner in ("alice", "bob", None)}
    queue, store = DirectQueue(client, "m"), JobRecords(client, "m")

    for job_id, record in submissions.items():
        await queue.enqueue(NewJob(job_id, b"image", record, request_id="r"))

    assert {job_id: await store.find_record(job_id) for job_id in submissions} == submissions
    assert await client.llen("rq:queue:analysis-m") == 1


async def test_urgent_job_is_first_in_the_queue_together_with_its_leader(client: Redis) -> None:
    queue, leader, urgent, hurried = DirectQueue(client, "m"), uuid4(), uuid4(), uuid4()
    await add_waiting(client, queue, 1)
    first = (await client.lrange("rq:queue:analysis-m", 0, -1))[0]
    led = PENDING.model_copy(update={"image_hash": "a" * 64})
    await queue.enqueue(NewJob(leader, b"image", led, request_id="r"))

    other = PENDING.model_copy(update={"image_hash": "b" * 64})
    await queue.enqueue(NewJob(urgent, b"image", other, request_id="r", is_urgent=True))
    before = await client.lrange("rq:queue:analysis-m", 0, -1)
    followed = await queue.enqueue(NewJob(hurried, b"image", led, request_id="r", is_urgent=True))

    assert before == [str(urgent).encode(), first, str(leader).encode()]
    assert followed == leader
    order = [str(leader).encode(), str(urgent).encode(), first]
    assert await client.lrange("rq:queue:analysis-m", 0, -1) == order


async def test_deep_request_follows_only_deep_requests(client: Redis) -> None:
    queue, store, jobs = DirectQueue(client, "m"), JobRecords(client, "m"), [uuid4() for _ in range(4)]
    records = [PENDING.model_copy(update={"top_k": top_k}) for top_k in (None, 6, 5, 100)]

    led = [
        await queue.enqueue(NewJob(job, b"image", record, request_id="r"))
        for job, record in zip(jobs, records, strict=True)
    ]

    assert led == [None, None, jobs[0], jobs[1]]
    assert [await store.find_record(job) for job in jobs] == records


async def test_ended_leader_is_not_followed(client: Redis) -> None:
    leader, queue = uuid4(), DirectQueue(client, "m")
    await queue.enqueue(NewJob(leader, b"image", PENDING, request_id="r"))
    await client.hset(keys.job(str(leader)), "status", JobStatus.FAILED)

    assert await queue.enqueue(NewJob(uuid4(), b"image", PENDING, request_id="r")) is None
    assert await client.llen("rq:queue:analysis-m") == 2


async def test_result_that_was_cached_meanwhile_is_not_computed_again(client: Redis) -> None:
    await client.hset(keys.result(PENDING.image_hash), "m@r#1", "{}")
    await client.expire(keys.result(PENDING.image_hash), 60)

    with pytest.raises(ResultCached):
        await DirectQueue(client, "m").enqueue(NewJob(uuid4(), b"image", PENDING, request_id="r", cache_field="m@r#1"))
    assert not await client.exists("rq:queue:analysis-m")


async def test_full_redis_accepts_nothing(redis: SyncRedis, redis_url: str) -> None:
    redis.config_set("maxmemory", 1)
    try:
        async with connect(redis_url) as client:
            with pytest.raises(StoreUnavailable):
                await DirectQueue(client, "m").enqueue(NewJob(uuid4(), b"image", PENDING, request_id="r"))
    finally:
        redis.config_set("maxmemory", 0)

    assert list(redis.scan_iter()) == []


async def test_script_that_redis_has_forgotten_is_loaded_again(client: Redis) -> None:
    limiter = RateLimiter(client, max_requests=5, interval_s=60)
    await limiter.admit(CLIENT)
    await client.script_flush()

    verdict = await limiter.admit(CLIENT)

    assert verdict == Verdict(is_admitted=True, remaining=3, reset_s=60)
