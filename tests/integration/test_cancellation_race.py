"""One client submits an image while another cancels its job: over a network, every order of steps happens.

`RACE_ROUNDS` sets the number of rounds.
"""

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.jobs.records import connect as connect_worker
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.direct import DirectQueue, registries
from support.links import open_link
from support.replies import decoded
from support.steps import RESULT
from support.waiting import eventually

ROUNDS = int(os.environ.get("RACE_ROUNDS") or 40)


@contextmanager
def working(redis_url: str) -> Iterator[None]:
    """Run every job as a worker does, always with the same result."""
    stop = threading.Event()

    def work() -> None:
        with connect_worker(redis_url) as redis:
            batch_worker = BatchWorker("m", redis, Records("m", cache_ttl_s=60))
            while not stop.is_set():
                jobs, _ = batch_worker.take(4, wait_s=1, is_alone=True)
                for job in jobs:
                    if not job.has_ended:
                        job.end(RESULT)
                if jobs:
                    batch_worker.finish(jobs)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Clients:
    """Two clients of the API that submit the same images."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._queue = DirectQueue(redis, "m")
        self._cancellation = Cancellation(redis)

    async def submit(self, image: bytes) -> UUID:
        job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image))
        await self._queue.enqueue(NewJob(job_id, image, record, request_id="r"))
        return job_id

    async def end(self, job_id: UUID) -> str:
        async def status() -> str | None:
            status = decoded(await self._redis.hget(keys.job(str(job_id)), "status"))
            return status if JobStatus(status).is_final else None

        return await eventually(status, "the job ends")

    async def race(self, image: bytes, cancelled_s: float, joined_s: float) -> tuple[str, str]:
        """Submit, cancel, and submit again; return how both jobs ended."""
        first = await self.submit(image)

        async def cancel() -> str:
            await asyncio.sleep(cancelled_s)
            outcome = await self._cancellation.cancel(first, None)
            return outcome if outcome is Outcome.FORGOTTEN else await self.end(first)

        async def join() -> str:
            await asyncio.sleep(joined_s)
            return await self.end(await self.submit(image))

        ends = await asyncio.gather(cancel(), join())
        return ends[0], ends[1]


async def race(redis_url: str, delay_s: float) -> Counter[tuple[str, str]]:
    """Run all rounds. The worker pops, reads, starts and ends a job 2, 4, 6 and 8 delays after its submission."""
    dice = random.Random(ROUNDS)
    async with connect(redis_url) as redis:
        clients, ends = Clients(redis), Counter[tuple[str, str]]()
        for number in range(ROUNDS):
            cancelled_s = dice.uniform(1, 5) * delay_s
            joined_s = cancelled_s + dice.uniform(0, 4) * delay_s
            ends[await clients.race(b"%d" % number, cancelled_s, joined_s)] += 1
    return ends


@pytest.mark.parametrize("delay_ms", [1, 20])
def test_no_job_fails_because_another_is_cancelled(
    redis: Redis, redis_url: str, redis_socket: Path, delay_ms: int
) -> None:
    with (
        open_link(lambda: asyncio.open_unix_connection(redis_socket), delay_s=delay_ms / 1000) as link,
        working(link.url),
    ):
        ends = asyncio.run(race(redis_url, delay_ms / 1000))

    # On a busy machine, the first job may end before it is cancelled: then the call deletes it.
    assert ends.keys() <= {("CANCELLED", "COMPLETED"), ("FORGOTTEN", "COMPLETED")}, ends
    assert registries(redis).keys() <= {"finished", "canceled"}
