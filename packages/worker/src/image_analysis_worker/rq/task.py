"""The task function by its name, for RQ's own workers: any of them with the JSON serializer can run our jobs."""

import time
from dataclasses import replace
from functools import cache
from typing import Any

from rq.job import get_current_job

from image_analysis_common import keys
from image_analysis_common.errors import ServiceError
from image_analysis_common.job_errors import ImageExpired, TrainingNotSupported
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.store import ClassifierStore
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.engine import Decoder, Model
from image_analysis_worker.engines.models import load_served
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.classifying import check_classifier, find_classifiers, predict
from image_analysis_worker.jobs.outcomes import describe, make_result
from image_analysis_worker.jobs.records import Records, connect, read_steps
from image_analysis_worker.settings import WorkerSettings


@cache
def load_model() -> Model:
    """Load the environment's model, once in a process."""
    settings = WorkerSettings.from_environment()
    return load_served(find_checkpoint(settings.model_id, settings.model_revision, name=settings.model_name), settings)


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
    redis, job = connect(settings.redis_dsn, settings.sentinels), get_current_job()
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
            return record.result.model_dump(exclude={"embedding"}) if record.result else None
        records.write(pipeline, [records.begin(job_id, record)])
        [answer] = pipeline.execute()
        if read_steps(answer) != [JobStatus.PROCESSING]:
            return None  # It was cancelled, and no job follows it.
        try:
            if image is None:
                raise ImageExpired
            if record.training is not None:
                raise TrainingNotSupported("RQ's own workers do not train: start image-analysis-worker.")
            run = Job(job_id, "", record, image, attempts_left=1, is_suspect=False)
            find_classifiers(ClassifierStore(redis), [run])
            check_classifier(run, model.ref)
            [predictions] = model.classify([model.prepare(run, start_decoder())], run.top_k)
            if record.classifier is not None:
                predictions = predict(run)
        except Exception as error:
            if isinstance(error, ServiceError) or job is None or (job.retries_left or 0) <= 1:
                if job is not None:
                    job.retries_left = 0
                step = records.fail(job_id, record, describe(error))
            else:
                step = records.retry(job_id)
            records.write(pipeline, [step])
            pipeline.execute()
            raise
        result = make_result(run, predictions, model.ref)
        processing_time_ms = round((time.perf_counter() - started_s) * 1000, 2)
        written = records.complete(job_id, record, result, processing_time_ms, embedding=run.embedding)
        if run.has_newer_classifier:
            written = replace(written, cached=None, embedding=None)
        records.write(pipeline, [written])
        pipeline.execute()
    return result.model_dump(exclude={"embedding"})  # our own keys hold it
