"""Job records and batch records, as the API reads and writes them."""

from collections.abc import Sequence
from typing import cast
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import NoWorker, UnreadableRecord
from image_analysis_common.models import FrozenModel
from image_analysis_common.records import JobRecord, Progress, read_json

BATCH_TTL_S = keys.WAITING_JOB_TTL_S + keys.ENDED_JOB_TTL_S


class BatchRecord(FrozenModel):
    """The jobs of a batch, in the order of its images."""

    owner: str | None
    job_ids: tuple[UUID, ...]


class JobRecords:
    """Reads records, and checks for a live worker of the default model."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self._model = model

    async def find_record(self, job_id: UUID) -> JobRecord | None:
        """Read a job's record.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        async with reaching_redis():
            fields = cast(dict[bytes, bytes], await self._redis.hgetall(keys.job(str(job_id))))
        return JobRecord.from_hash(fields) if fields else None

    async def find_batch(self, batch_id: UUID) -> BatchRecord | None:
        """Read a batch's record.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        async with reaching_redis():
            found = await self._redis.get(keys.batch(str(batch_id)))
        return read_json(BatchRecord, found) if found else None

    async def find_progress(self, job_ids: Sequence[str]) -> list[Progress | UnreadableRecord | None]:
        """Read several jobs in one round trip: None for a job that does not exist, an error for an unreadable one."""
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(keys.job(job_id))
            found = await pipeline.execute()
        return [_read_progress(fields) if fields else None for fields in found]

    async def check_worker(self) -> None:
        """Check that Redis accepts writes and that a worker of the default model has reported recently.

        Raises:
            StoreUnavailable, NoWorker
        """
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            # A Redis that is full or read-only answers reads, but no image could be accepted.
            pipeline.set(keys.PROBE, "", ex=keys.WORKER_TTL_S)
            pipeline.time()
            pipeline.zrange(keys.workers(self._model), -1, -1, withscores=True)
            _, (now_s, _), latest = await pipeline.execute()
        if not latest or now_s - latest[0][1] > keys.WORKER_TTL_S:
            raise NoWorker


def _read_progress(fields: dict[bytes, bytes]) -> Progress | UnreadableRecord:
    try:
        return Progress.from_hash(fields)
    except UnreadableRecord as error:
        return error


def write_batch(pipeline: Pipeline, batch_id: UUID, batch: BatchRecord) -> None:
    """Write a batch's record into a pipeline."""
    pipeline.set(keys.batch(str(batch_id)), batch.model_dump_json(), ex=BATCH_TTL_S)
