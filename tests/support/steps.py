"""Writes a job's steps as a worker does, for tests without a worker."""

from redis import Redis

from image_analysis_common import keys
from image_analysis_common.classifiers import Classifier
from image_analysis_common.models import AnalysisResult, JobFailure, Prediction
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.runs import Step
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.jobs.records import Records
from support.announcements import MODEL
from support.replies import read_record

RESULT = AnalysisResult(label="cat", confidence=0.9, predictions=[Prediction(label="cat", confidence=0.9)], model=MODEL)
FAILURE = JobFailure(code="corrupt_image", detail="It is damaged.")


WHOLE_RUN = ["PENDING", "PROCESSING", "PENDING", "PROCESSING", "COMPLETED"]


class Steps:
    """Writes each step in a separate transaction."""

    def __init__(self, redis: Redis, model_id: str = BUNDLED_MODEL) -> None:
        self._redis = redis
        self._records = Records(model_id, cache_ttl_s=60)

    def begin(self, job_id: str) -> None:
        self._write(self._records.begin(job_id, self._record(job_id)))

    def retry(self, job_id: str) -> None:
        self._write(self._records.retry(job_id))

    def complete(self, job_id: str, result: AnalysisResult = RESULT) -> None:
        self._write(self._records.complete(job_id, self._record(job_id), result, 12.5))

    def train(self, job_id: str, classifier: Classifier) -> None:
        self._write(self._records.complete_training(job_id, self._record(job_id), classifier, 12.5))

    def fail(self, job_id: str, failure: JobFailure = FAILURE) -> None:
        self._write(self._records.fail(job_id, self._record(job_id), failure))

    def run_with_retry(self, job_id: str) -> None:
        """Write all of `WHOLE_RUN`, with steps in between that change nothing."""
        for step in (self.begin, self.retry, self.retry, self.begin, self.begin, self.complete, self.fail):
            step(job_id)

    def _write(self, step: Step) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.write(pipeline, [step])
            pipeline.execute()

    def _record(self, job_id: str) -> JobRecord:
        return read_record(self._redis.hgetall(keys.job(job_id)))
