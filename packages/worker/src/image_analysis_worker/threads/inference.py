"""The thread that runs batches through the model and writes how their jobs ended."""

import threading
from collections.abc import Sequence

import structlog
from redis.exceptions import RedisError

from image_analysis_common.errors import ServiceError
from image_analysis_common.models import AnalysisResult, Prediction
from image_analysis_worker.engines.engine import Model
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.classifying import predict
from image_analysis_worker.jobs.outcomes import make_result
from image_analysis_worker.metrics import BATCH_SIZE, STAGES
from image_analysis_worker.threads.shared import Shared

log = structlog.get_logger(__name__)


class Inference(threading.Thread):
    """Runs batches until the worker stops, or until the model is broken: then other workers do better."""

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
                    works = self._classify(decoded)
                self._write(batch)
                if not works:
                    raise RuntimeError("The model fails on a blank image, too.")
        except RedisError:
            pass  # The worker stops during an outage of Redis: other workers will run the batch again.

    def _write(self, batch: Sequence[Job]) -> None:
        """Write the ends of a batch; give back the jobs that a broken model has left."""
        ended = [job for job in batch if job.has_ended]
        left = [job for job in batch if not job.has_ended]
        retry, batch_worker = self._shared.outage.retry, self._shared.batch_worker
        retry(lambda: batch_worker.finish(ended))
        if left:
            retry(lambda: batch_worker.give_back(left))
        self._shared.in_flight.remove(batch)

    def _classify(self, jobs: list[Job]) -> bool:
        """End jobs with their answers; return whether the model works. If not, the jobs after the first are left."""
        if not jobs:
            return True
        try:
            answers = self._model.classify([job.input for job in jobs], max(job.top_k for job in jobs))
        except Exception as error:
            # The last line of defense. One input may have failed the whole batch, so each runs by itself.
            log.exception("batch_failed", size=len(jobs))
            if len(jobs) == 1:
                jobs[0].end(error)
                return isinstance(error, ServiceError) or self._does_model_work()
            return all(self._classify([job]) for job in jobs)
        for job, predictions in zip(jobs, answers, strict=True):
            job.end(self._answer(job, predictions))
        return True

    def _does_model_work(self) -> bool:
        """Return whether the model still works on a blank image: after an error of a GPU, nothing works any more."""
        try:
            self._model.check_network()
        except Exception:
            log.exception("model_broken")
            return False
        return True

    def _answer(self, job: Job, predictions: list[Prediction]) -> AnalysisResult | Exception:
        """Make a job's result from the model's predictions, or from those of its classifier."""
        try:
            found = predict(job) if job.record.classifier else predictions[: job.top_k]
            return make_result(job, found, self._model.ref)
        except Exception as error:  # noqa: BLE001
            # The last line of defense: a damaged classifier fails its own job, and the worker continues.
            return error
