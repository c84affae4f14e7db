"""Queues with one worker each, ours and RQ's: filled while the worker is paused, then observed until empty."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

import rq
from redis import Redis

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from perf.programs import Program, ProgramError
from support.direct import DirectQueue

STUCK_S = 60.0
"""After this time without an ended job, the worker is considered to hang."""

JOBS = "bench:jobs"
IMAGE_TTL_S = 600
NO_LIMIT = 1_000_000_000_000

# Removes the completed jobs from the front of the list; returns how many are left, or -1 if a job did not complete.
SWEEP = """
while true do
  local job = redis.call('LINDEX', KEYS[1], 0)
  if not job then return 0 end
  local status = redis.call('HGET', job, 'status')
  if status == 'FAILED' or status == 'CANCELLED' then return -1 end
  if status ~= 'COMPLETED' then return redis.call('LLEN', KEYS[1]) end
  redis.call('LPOP', KEYS[1])
end
"""


class WorkQueue(Protocol):
    """A queue that one worker listens on."""

    def fill(self, images: Sequence[bytes]) -> None:
        """Put one job for each image into the queue."""

    def left(self) -> int:
        """Count the jobs that have not ended.

        Raises:
            ProgramError: one has failed.
        """


class OurQueue:
    """The service's own queue of one model, filled as the API fills it."""

    def __init__(self, redis_url: str, model_id: str) -> None:
        self._redis_url = redis_url
        self._model_id = model_id
        self._redis = Redis.from_url(redis_url)
        self._sweep = self._redis.register_script(SWEEP)

    def fill(self, images: Sequence[bytes]) -> None:
        job_ids = asyncio.run(self._enqueue(images))
        self._redis.delete(JOBS)
        self._redis.rpush(JOBS, *(keys.job(job_id) for job_id in job_ids))

    async def _enqueue(self, images: Sequence[bytes]) -> list[str]:
        job_ids = [uuid4() for _ in images]
        async with connect(self._redis_url) as redis:
            queue = DirectQueue(redis, self._model_id, max_depth=NO_LIMIT, max_bytes=NO_LIMIT)
            for job_id, image in zip(job_ids, images, strict=True):
                record = JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image))
                await queue.enqueue(NewJob(job_id, image, record, request_id="bench"))
        return [str(job_id) for job_id in job_ids]

    def left(self) -> int:
        number = int(self._sweep([JOBS]))
        if number < 0:
            raise ProgramError("A job of our worker failed")
        return number


class RqQueue:
    """A plain RQ queue with JSON jobs: the image's bytes are under a key; everything else is RQ's default."""

    def __init__(self, redis_url: str, name: str, task: str, **arguments: str) -> None:
        self._redis = Redis.from_url(redis_url)
        self._queue = rq.Queue(name, connection=self._redis, serializer="json")
        self._task = task
        self._arguments = arguments
        self._target = 0

    def fill(self, images: Sequence[bytes]) -> None:
        self._target = self._queue.finished_job_registry.count + len(images)
        image_keys = [f"bench:image:{uuid4()}" for _ in images]
        with self._redis.pipeline() as pipeline:
            for key, image in zip(image_keys, images, strict=True):
                pipeline.set(key, image, ex=IMAGE_TTL_S)
            self._queue.enqueue_many(
                [self._queue.prepare_data(self._task, kwargs={"key": key, **self._arguments}) for key in image_keys],
                pipeline=pipeline,
            )
            pipeline.execute()

    def left(self) -> int:
        # The registry's `count` first cleans it up, which takes one or two more round trips.
        if self._redis.zcard(self._queue.failed_job_registry.key):
            raise ProgramError("A job of RQ's worker failed")
        return self._target - int(self._redis.zcard(self._queue.finished_job_registry.key))


def drain(worker: Program, queue: WorkQueue, images: Sequence[bytes]) -> tuple[float, list[float]]:
    """Fill the queue, let the worker empty it; return the times of the start and of each job's end.

    Raises:
        ProgramError: a job failed, or the worker hangs or has ended.
    """
    with worker.paused():
        queue.fill(images)
    started_s = time.perf_counter()
    ends_s: list[float] = []
    while len(ends_s) < len(images):

        def count_new(known: int = len(ends_s)) -> int:
            return len(images) - known - queue.left()

        new = worker.wait_until(count_new, "the next job ends", STUCK_S)
        ends_s.extend([time.perf_counter()] * new)
    return started_s, ends_s
