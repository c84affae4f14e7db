"""A Redis that is full refuses new jobs, but its workers and deliverers continue, which frees its memory."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from image_analysis_api.deliverer.outbox import Outbox
from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.jobs.sweep import Sweep
from image_analysis_api.store.client import connect, run_script
from image_analysis_common import keys
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.images import image_digest
from image_analysis_common.job_errors import CorruptImage
from image_analysis_common.models import CachedResult, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts import jobs as job_scripts
from image_analysis_common.scripts.limits import Quota
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.maintenance import Maintenance
from support.announcements import MODEL, make_announcement
from support.direct import QUEUE, DirectQueue, read, registries, take
from support.replies import raw
from support.samples import make_png
from support.steps import RESULT
from support.waiting import wait_until

pytestmark = pytest.mark.anyio

ANNOUNCEMENT = make_announcement(MODEL.model_copy(update={"id": "m"}))


@pytest.fixture
async def api(redis_url: str) -> AsyncIterator[AsyncRedis]:
    async with connect(redis_url) as api:
        yield api


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)


async def submit(api: AsyncRedis, model: str, count: int) -> list[str]:
    job_ids = [uuid4() for _ in range(count)]
    for number, job_id in enumerate(job_ids):
        image = make_png(number)
        record = JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image))
        await DirectQueue(api, model).enqueue(NewJob(job_id, image, record, request_id="r"))
    return list(map(str, job_ids))


async def test_worker_drains_the_queue_and_stays_alive(redis: Redis, api: AsyncRedis, worker: int) -> None:
    os.kill(worker, signal.SIGSTOP)
    try:
        jobs = await submit(api, BUNDLED_MODEL, 20)
        redis.config_set("maxmemory", 1)
    finally:
        os.kill(worker, signal.SIGCONT)
    with full(redis):
        wait_until(lambda: set(read(redis, *jobs)) == {"COMPLETED"}, "the jobs have ended")
        redis.delete(keys.workers(BUNDLED_MODEL))
        wait_until(lambda: redis.exists(keys.workers(BUNDLED_MODEL)), "the worker sends heartbeats")

        assert not list(redis.scan_iter(keys.image("*")))
        with pytest.raises(StoreUnavailable):
            await submit(api, BUNDLED_MODEL, 1)


async def test_client_whose_oldest_requests_have_expired_is_refused(redis: Redis, api: AsyncRedis) -> None:
    now_s, _ = map(int, redis.time())
    quota, job_id = Quota(keys.rate_limit("192.0.2.1"), limit=5, window_s=60), uuid4()
    requests = [1_000_000 * (now_s - age_s) for age_s in (61, 61, 1)]
    redis.rpush(quota.key, *requests)
    redis.expire(quota.key, 60)
    record = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64)

    with full(redis), pytest.raises(StoreUnavailable):
        await run_script(api, DirectQueue(api, "m").call(NewJob(job_id, b"image", record, request_id="r"), quota))

    assert list(redis.scan_iter()) == [quota.key.encode()]
    assert list(map(int, redis.lrange(quota.key, 0, -1))) == requests


async def test_every_step_of_a_job_is_taken(redis: Redis, api: AsyncRedis, batch_worker: BatchWorker) -> None:
    jobs = await submit(api, "m", 2)

    with full(redis):
        Maintenance(batch_worker, ANNOUNCEMENT).open()
        batch_worker.give_back(take(batch_worker))
        for outcome in (RESULT, CorruptImage()):
            [job] = take(batch_worker)
            job.end(outcome)
            batch_worker.finish([job])
        nothing = batch_worker.take(1, wait_s=1, is_alone=True)

    assert read(redis, *jobs) == ["COMPLETED", "FAILED"]
    assert nothing == ([], False)


async def test_jobs_of_a_dead_worker_are_requeued(redis: Redis, api: AsyncRedis, batch_worker: BatchWorker) -> None:
    started, popped = await submit(api, "m", 2)
    take(batch_worker)
    redis.lmove(f"rq:queue:{QUEUE}", f"rq:queue:{QUEUE}:intermediate")
    other = BatchWorker("m", redis, Records("m", cache_ttl_s=60))

    [execution] = redis.zrange(f"rq:wip:{QUEUE}", 0, -1)
    redis.zadd(f"rq:wip:{QUEUE}", {raw(execution): 1})

    with full(redis):

        def are_requeued() -> bool:
            redis.delete(keys.sweep(QUEUE))
            Maintenance(other, ANNOUNCEMENT).sweep()
            return registries(redis) == {"waiting": [popped, started]}

        wait_until(are_requeued, "the jobs are requeued")
    redis.delete(*redis.keys("rq:*"))


async def test_every_job_can_be_cancelled(redis: Redis, api: AsyncRedis, batch_worker: BatchWorker) -> None:
    record = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64)
    [running] = await submit(api, "m", 1)
    [job] = take(batch_worker)
    followed, follower = uuid4(), uuid4()
    for job_id in (followed, follower):
        await DirectQueue(api, "m").enqueue(NewJob(job_id, b"image", record, request_id="r"))

    with full(redis):
        outcomes = [await Cancellation(api).cancel(job_id, None) for job_id in (UUID(running), followed, follower)]
        job.end(RESULT)
        batch_worker.finish([job])

    assert outcomes == ["ENDING", "CANCELLED", "CANCELLED"]
    assert read(redis, running, str(followed), str(follower)) == ["CANCELLED"] * 3
    assert not list(redis.scan_iter(keys.image("*")))


async def test_sweep_ends_a_job_that_has_waited_too_long(redis: Redis, api: AsyncRedis) -> None:
    [job_id] = await submit(api, "m", 1)
    redis.hset(keys.job(job_id), "waits_until_s", "0")

    with full(redis):
        await Sweep(api, check_s=0, confirm_s=0).step()

    assert read(redis, job_id) == ["FAILED"]


async def test_every_step_of_a_webhook_is_taken(redis: Redis, api: AsyncRedis) -> None:
    pending = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64, webhook_url="https://receiver.test/")
    ended, job_id = pending.completed_from(CachedResult(result=RESULT, processing_time_ms=1)), str(uuid4())
    await run_script(api, job_scripts.add_ended(job_id, ended))
    outbox = Outbox(api, "host")

    with full(redis):
        await outbox.beat()
        [first], _ = await outbox.claim(1, {})
        await outbox.retry(first, -1)
        [second], _ = await outbox.claim(1, {})
        await outbox.drop(second)

    assert [first.attempts, second.attempts] == [1, 2]
    assert redis.exists(keys.deliverer("host")) == 1
    assert redis.exists(keys.delivery(job_id), keys.DELIVERIES) == 0
