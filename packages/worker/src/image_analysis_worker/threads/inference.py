"""The thread that runs batch after batch through the model, and records how their jobs ended."""

import threading

import structlog
from redis.exceptions import RedisError

from image_analysis_worker.engines.engine import Engine
from image_analysis_worker.jobs.in_flight import Work
from image_analysis_worker.jobs.outcomes import make_result
from image_analysis_worker.metrics import BATCH_SIZE, STAGES
from image_analysis_worker.threads.shared import Shared

log = structlog.get_logger(__name__)


class Inference(threading.Thread):
    """Runs batches until no more jobs are in flight and the worker stops."""

    def __init__(self, shared: Shared, model: Engine, *, max_size: int, wait_s: float) -> None:
        super().__init__(name="inference")
        self._model = model
        self._shared = shared
        self._max_size = max_size
        self._wait_s = wait_s

    def run(self) -> None:
        try:
            while (batch := self._shared.in_flight.next_batch(self._max_size, self._wait_s)) is not None:
                sound = [work for work in batch if not work.has_ended]
                if sound:
                    BATCH_SIZE.observe(len(sound))
                with self._shared.watchdog.step(batch), STAGES.spend("inference", *(work.stages for work in sound)):
                    self._classify(sound)
                self._shared.outage.insist(lambda batch=batch: self._shared.batch_worker.finish(batch))  # type: ignore[misc]
                self._shared.in_flight.let_go(batch)
        except RedisError:
            pass  # Told to stop while Redis is away: the batch runs again elsewhere.

    def _classify(self, works: list[Work]) -> None:
        if not works:
            return
        try:
            answers = self._model.classify([work.input for work in works], max(work.top_k for work in works))
        except Exception as error:
            # A last line of defence: one input may have spoiled the batch for the others.
            log.exception("batch_broke", size=len(works))
            if len(works) == 1:
                works[0].end(error)
                return
            for work in works:
                self._classify([work])
            return
        for work, predictions in zip(works, answers, strict=True):
            work.end(make_result(predictions[: work.top_k], self._model.ref))
