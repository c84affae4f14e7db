"""Job records and cached results, as the API reads and writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from image_analysis_api.store.client import reaching_redis, run_script, write_script
from image_analysis_common import keys
from image_analysis_common.errors import NoWorker, UnreadableRecord
from image_analysis_common.models import DEEP_SUFFIX, CachedResult, ModelAnnouncement
from image_analysis_common.records import JobRecord, Progress, read_json
from image_analysis_common.scripts import jobs


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about an image and the model that it is for.

    `field` names where in the image's hash the result stands or would stand; it is empty while the model is not known.
    """

    field: str
    cached: CachedResult | None
    is_known: bool
    has_worker: bool


class JobRecords:
    """Job records, cached results and what workers say of themselves."""

    def __init__(self, redis: Redis, model: str) -> None:
        self._redis = redis
        self._model = model

    async def find_result(self, image_hash: str, model: str | None = None, *, is_deep: bool = False) -> Finding:
        """Look for the result of an image by a model's present revision; another revision's result is none.

        Only a result that keeps more predictions serves a deep request; it serves any other, too.
        """
        model = model or self._model
        announced, pairs, live = await run_script(self._redis, jobs.find_result(model, image_hash))
        if announced is None:
            return Finding("", None, is_known=False, has_worker=False)
        try:
            field = read_json(ModelAnnouncement, announced).model.cache_field
            results = dict(zip(pairs[::2], pairs[1::2], strict=True))
            deep_field = field + DEEP_SUFFIX
            found = results.get(deep_field.encode())
            if is_deep:
                field = deep_field
            else:
                found = results.get(field.encode(), found)
            cached = read_json(CachedResult, found) if found else None
        except UnreadableRecord:
            field, cached = "", None  # The image is analyzed once more.
        return Finding(field, cached, is_known=True, has_worker=bool(live))

    async def add_record(self, job_id: UUID, record: JobRecord) -> None:
        """Note a job that has ended as it came: a cached result has answered it."""
        await run_script(self._redis, jobs.add_ended(str(job_id), record))

    async def find_record(self, job_id: UUID) -> JobRecord | None:
        """Read a job's record.

        Raises:
            UnreadableRecord: another release wrote it.
        """
        async with reaching_redis():
            fields = cast(dict[bytes, bytes], await self._redis.hgetall(keys.job(str(job_id))))
        return JobRecord.from_hash(fields) if fields else None

    async def find_progress(self, job_ids: Sequence[str]) -> list[Progress | UnreadableRecord | None]:
        """Read several jobs in one round trip; the error stands for one that cannot be read."""
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hgetall(keys.job(job_id))
            found = await pipeline.execute()
        return [_read_progress(fields) if fields else None for fields in found]

    async def check_worker(self) -> None:
        """Check that Redis takes something in and that a worker of the model was heard of lately.

        Raises:
            StoreUnavailable, NoWorker
        """
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            # A Redis that is full or read-only answers what is asked, and no image gets in.
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


def write_ended(pipeline: Pipeline, job_id: UUID, record: JobRecord) -> None:
    """Do as `JobRecords.add_record` does, as one command of a pipeline; the job may have been refused, too."""
    write_script(pipeline, jobs.add_ended(str(job_id), record))
