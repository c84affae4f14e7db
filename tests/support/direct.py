"""Calls what the API does with jobs directly, without HTTP, and reads the jobs from Redis; all for the model `m`."""

import asyncio
from uuid import UUID, uuid4

from redis import Redis

from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.queue import JobQueue, NewJob, read_answer
from image_analysis_api.store.client import connect, run_script
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.replies import decoded

QUEUE = "analysis-m"
IMAGE_HASH = "1" * 64


class DirectQueue(JobQueue):
    """The API's queue of one model, for tests without its HTTP."""

    async def enqueue(self, new: NewJob) -> UUID | None:
        """Queue an image as the API does when the cache has no result; return and raise as `read_answer` does."""
        return read_answer(await run_script(self._redis, self.call(new)))


class Client:
    """Submits one image and cancels jobs as the API does."""

    def __init__(self, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._redis = connect(redis_url)

    def submit(self) -> str:
        job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=IMAGE_HASH)
        self._runner.run(DirectQueue(self._redis, "m").enqueue(NewJob(job_id, b"image", record, request_id="r")))
        return str(job_id)

    def cancel(self, job_id: str) -> None:
        self._runner.run(Cancellation(self._redis).cancel(UUID(job_id), None))

    def close(self) -> None:
        self._runner.run(self._redis.aclose())
        self._runner.close()


def take(batch_worker: BatchWorker) -> list[Job]:
    """Take one job from the queue, as a worker with no other job in flight does."""
    return batch_worker.take(1, wait_s=1, is_alone=True)[0]


def read(redis: Redis, *jobs: str) -> list[str]:
    """Return the statuses of jobs."""
    return [decoded(redis.hget(keys.job(job_id), "status")) for job_id in jobs]


def registries(redis: Redis) -> dict[str, list[str]]:
    """Return the content of RQ's queue and registries, without the empty ones."""
    found = {
        "waiting": redis.lrange(f"rq:queue:{QUEUE}", 0, -1),
        "between": redis.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1),
        **{name: redis.zrange(f"rq:{name}:{QUEUE}", 0, -1) for name in ("wip", "finished", "failed", "canceled")},
    }
    return {name: [decoded(job) for job in jobs] for name, jobs in found.items() if jobs}
