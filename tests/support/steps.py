"""A job's steps, taken as a worker takes them, without one."""

from redis import Redis

from image_analysis_common import keys
from image_analysis_common.models import AnalysisResult, JobFailure, ModelRef, Prediction
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.jobs.records import Records
from support.replies import read_record

MODEL = ModelRef(id=BUNDLED_MODEL, revision="r1", preprocessing="1")
RESULT = AnalysisResult(label="cat", confidence=0.9, predictions=[Prediction(label="cat", confidence=0.9)], model=MODEL)
FAILURE = JobFailure(code="corrupt_image", detail="It is damaged.")


WHOLE_RUN = ["PENDING", "PROCESSING", "PENDING", "PROCESSING", "COMPLETED"]


class Steps:
    """Each step in a transaction of its own."""

    def __init__(self, redis: Redis, model_id: str = BUNDLED_MODEL) -> None:
        self._redis = redis
        self._records = Records(model_id, cache_ttl_s=60)

    def begin(self, job_id: str) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.begin(pipeline, job_id, self._record(job_id))
            pipeline.execute()

    def retry(self, job_id: str) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.retry(pipeline, job_id)
            pipeline.execute()

    def complete(self, job_id: str) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.complete(pipeline, job_id, self._record(job_id), RESULT, 12.5)
            pipeline.execute()

    def fail(self, job_id: str) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.fail(pipeline, job_id, self._record(job_id), FAILURE)
            pipeline.execute()

    def run_with_retry(self, job_id: str) -> None:
        """Take `WHOLE_RUN`, and on the way steps that change nothing."""
        for step in (self.begin, self.retry, self.retry, self.begin, self.begin, self.complete, self.fail):
            step(job_id)

    def _record(self, job_id: str) -> JobRecord:
        return read_record(self._redis.hgetall(keys.job(job_id)))
