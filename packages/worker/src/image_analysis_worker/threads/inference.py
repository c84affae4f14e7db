"""The thread that runs batches through the model and writes how their jobs ended."""

import threading

import structlog
from redis.exceptions import RedisError

from image_analysis_common.models import AnalysisResult, Prediction
from image_analysis_worker.engines.engine import Model
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.classifying import predict
from image_analysis_worker.jobs.outcomes import make_result
from image_analysis_worker.metrics import BATCH_SIZE, STAGES
from image_analysis_worker.threads.shared import Shared

log = structlog.get_logger(__name__)


class Inference(threading.Thread):
    """Runs batches until the worker stops."""

    def __init__(self, shared: Shared, model: Model, *, max_size: int, wait_s: float) -> None:
        super().__init__(name="inference")
        self._model = model
        self._shared = shared
        self._max_size = max_size
        self._wait_s = wait_s

    def run(self) -> None:
        try:
            while (batch := self._shared.in_flight.next_batch(self._max_size, self._wait_s)) is not None:
                decoded = [job for job in batch if not job.has_ended]
                if decoded:
                    BATCH_SIZE.observe(len(decoded))
                with self._shared.watchdog.step(batch), STAGES.measure("inference", *(job.stages for job in decoded)):
                    self._classify(decoded)
                self._shared.outage.retry(lambda batch=batch: self._shared.batch_worker.finish(batch))  # type: ignore[misc]
                self._shared.in_flight.remove(batch)
        except RedisError:
            pass  # The worker stops during an outage of Redis: other workers will run the batch again.

    def _classify(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            answers = self._model.classify([job.input for job in jobs], max(job.top_k for job in jobs))
        except Exception as error:
            # The last line of defense. One input may have failed the whole batch, so each runs by itself.
            log.exception("batch_failed", size=len(jobs))
            if len(jobs) == 1:
                jobs[0].end(error)
                return
            for job in jobs:
                self._classify([job])
            return
        for job, predictions in zip(jobs, answers, strict=True):
            job.end(self._answer(job, predictions))

    def _answer(self, job: Job, predictions: list[Prediction]) -> AnalysisResult | Exception:
        """Make a job's result from the model's predictions, or from those of its classifier."""
        try:
            found = predict(job) if job.record.classifier else predictions[: job.top_k]
            return make_result(job, found, self._model.ref)
        except Exception as error:  # noqa: BLE001
            # The last line of defense: a damaged classifier fails its own job, and the worker continues.
            return error
