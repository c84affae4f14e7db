"""The task function by its name, for RQ's own workers: any of them with the JSON serializer can run our jobs."""

import time
from functools import cache
from typing import Any

from rq.job import get_current_job

from image_analysis_common import keys
from image_analysis_common.errors import ServiceError
from image_analysis_common.job_errors import ImageExpired
from image_analysis_common.models import MAX_TOP_K, TOP_K, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.decoding.decoder import Decoder
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.torch import TorchEngine
from image_analysis_worker.jobs.outcomes import describe, make_result
from image_analysis_worker.jobs.records import Records, connect, read_step
from image_analysis_worker.settings import WorkerSettings


@cache
def load_model() -> TorchEngine:
    """Load the environment's model, once in a process."""
    settings = WorkerSettings.from_environment()
    return TorchEngine.load(
        find_checkpoint(settings.model_id, settings.model_revision, name=settings.model_name), settings
    )


@cache
def start_decoder() -> Decoder:
    """Make the decoder of this process."""
    return load_model().open_decoder()


def analyze_image(*, job_id: str) -> dict[str, Any] | None:
    """Analyze one job's image and write its record, as `BatchWorker` does for batches.

    Raises:
        Exception: whatever went wrong, so that RQ records it; the record holds it too once no attempt is left.
    """
    settings, model = WorkerSettings.from_environment(), load_model()
    redis, job = connect(settings.redis_dsn), get_current_job()
    records = Records(model.ref.id, cache_ttl_s=settings.cache_ttl_seconds)
    started_s = time.perf_counter()
    with redis.pipeline() as pipeline:
        pipeline.hgetall(keys.job(job_id))
        pipeline.get(keys.image(job_id))
        fields, image = pipeline.execute()
        if not fields:
            return None
        record = JobRecord.from_hash(fields)
        if record.status in (JobStatus.COMPLETED, JobStatus.FAILED):
            return record.result.model_dump() if record.result else None
        records.begin(pipeline, job_id, record)
        [answer] = pipeline.execute()
        if read_step(answer) is not JobStatus.PROCESSING:
            return None  # It was cancelled, and no job follows it.
        try:
            if image is None:
                raise ImageExpired
            top_k = MAX_TOP_K if record.is_deep else TOP_K
            [predictions] = model.classify([start_decoder().decode(image)], top_k)
        except Exception as error:
            if isinstance(error, ServiceError) or job is None or (job.retries_left or 0) <= 1:
                if job is not None:
                    job.retries_left = 0
                records.fail(pipeline, job_id, record, describe(error))
            else:
                records.retry(pipeline, job_id)
            pipeline.execute()
            raise
        result = make_result(predictions, model.ref)
        processing_time_ms = round((time.perf_counter() - started_s) * 1000, 2)
        records.complete(pipeline, job_id, record, result, processing_time_ms)
        pipeline.execute()
    return result.model_dump()
