"""The API's side of RQ: an image, its job's record and RQ's job go into Redis together or not at all."""

from typing import cast
from uuid import UUID

import redis
import rq
from redis.asyncio import Redis
from rq import Callback, Retry

from image_analysis_api.store import translate_errors
from image_analysis_common import keys, tasks
from image_analysis_common.records import JobRecord


class JobQueue:
    """The queue of one model.

    RQ is synchronous, but writes a job through a pipeline only: given an asynchronous pipeline, its own code fills
    it, and we send it. One transaction and one round trip, no thread.
    """

    def __init__(self, connection: Redis, model_id: str) -> None:
        self._redis = connection
        self._queue = rq.Queue(
            tasks.queue_name(model_id), connection=cast(redis.Redis, connection), serializer=tasks.SERIALIZER
        )
        # RQ asks the server for its version before it writes; the service needs a newer one than RQ asks about.
        self._queue.redis_server_version = (6, 2, 0)

    async def enqueue(self, job_id: UUID, image: bytes, record: JobRecord, *, request_id: str) -> None:
        """Put an image in the queue.

        Raises:
            StoreUnavailable: nothing was queued.
        """
        identifier = str(job_id)
        job = self._queue.create_job(
            tasks.ANALYZE_IMAGE,
            kwargs={"job_id": identifier},
            job_id=identifier,
            timeout=tasks.JOB_TIMEOUT_S,
            ttl=keys.WAITING_JOB_TTL_S,
            result_ttl=keys.ENDED_JOB_TTL_S,
            failure_ttl=keys.ENDED_JOB_TTL_S,
            retry=Retry(max=tasks.MAX_ATTEMPTS - 1, enqueue_at_front=True),
            on_failure=Callback(tasks.RECORD_FAILURE),
            description=f"image {record.image_hash[:12]}",
            meta={"request_id": request_id},
        )
        with translate_errors():
            async with self._redis.pipeline() as pipeline:
                # First, for RQ opens the transaction itself.
                self._queue.enqueue_job(job, pipeline=cast("redis.client.Pipeline", pipeline))
                pipeline.set(keys.image(identifier), image, ex=keys.WAITING_JOB_TTL_S)
                pipeline.hset(keys.job(identifier), mapping=record.to_hash())
                pipeline.expire(keys.job(identifier), keys.WAITING_JOB_TTL_S)
                await pipeline.execute()
