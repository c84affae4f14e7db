"""The thread that takes jobs from the queue, and the threads that decode their images, while the model runs."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from redis.exceptions import RedisError

from image_analysis_common.errors import ServiceError
from image_analysis_worker.engines.engine import Decoder, Model
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.jobs.classifying import can_predict, check_classifier, predict
from image_analysis_worker.jobs.outcomes import make_result
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer

POLL_S = 1
"""How long a pop blocks, and so the longest that a stopping worker waits for its loader."""


class Loader(threading.Thread):
    """Takes jobs and decodes their images until the worker stops, or until no image can be decoded any more."""

    def __init__(self, shared: Shared, model: Model, trainer: Trainer, *, decoders: int) -> None:
        super().__init__(name="loader")
        self._shared = shared
        self._model = model
        self._trainer = trainer
        self._is_suspect_next = False
        self._fault: Exception | None = None
        self._undecoded: SimpleQueue[Job] = SimpleQueue()
        # Each has its own process, with one full-size picture in memory. They are daemons: unlike an executor's
        # threads, they do not keep the process from ending while they hang in a C call.
        self._decoders = [threading.Thread(target=self._decode, name="decoder", daemon=True) for _ in range(decoders)]

    def run(self) -> None:
        for decoder in self._decoders:
            decoder.start()
        # RedisError: the worker stops during an outage. Other workers requeue what this one has popped.
        with suppress(RedisError), self._shared.watchdog.loop() as reset:
            while not self._shared.is_stopping.is_set():
                reset()
                if self._fault is not None:
                    raise RuntimeError("A blank image cannot be decoded, either.") from self._fault
                self._load(reset)

    def _load(self, reset: Callable[[], None]) -> None:
        room = self._shared.in_flight.wait_for_room(POLL_S)
        if self._shared.batch_worker.is_suspended:
            self._shared.is_stopping.wait(POLL_S)
            return
        if not room:
            return
        limit = 1 if self._is_suspect_next else room

        def take() -> tuple[list[Job], bool]:
            reset()  # at each attempt, because an outage may last longer than the loop's limit
            return self._shared.batch_worker.take(limit, wait_s=POLL_S, is_alone=self._shared.in_flight.is_empty)

        jobs, self._is_suspect_next = self._shared.outage.retry(take)
        trainings = [job for job in jobs if job.record.training is not None and not job.has_ended]
        images = [job for job in jobs if job not in trainings]
        if not self._trainer.add(trainings):
            self._shared.batch_worker.give_back(jobs)
            return
        if not self._shared.in_flight.add(images, has_more=len(jobs) == room):
            self._shared.batch_worker.give_back(images)
            return
        for job in images:
            self._undecoded.put(job)
        if self._is_suspect_next:
            self._shared.in_flight.wait_until_empty(POLL_S)

    def _decode(self) -> None:
        decoder = self._model.open_decoder()
        while True:
            job = self._undecoded.get()
            if self._fault is not None:
                return  # The worker ends, and gives the job back.
            if not job.has_ended and self._shared.in_flight.has(job):
                with self._shared.watchdog.step([job]), STAGES.measure("decode", job.stages):
                    self._prepare(job, decoder)
            self._shared.in_flight.mark_ready(job)

    def _prepare(self, job: Job, decoder: Decoder) -> None:
        try:
            check_classifier(job, self._model.ref)
            if can_predict(job):
                job.end(make_result(job, predict(job), self._model.ref))
            else:
                job.input = self._model.prepare(job, decoder)
                job.image = b""
        except Exception as error:  # noqa: BLE001
            # The last line of defense: the job ends with this error, and the others continue.
            job.end(error)
            if not isinstance(error, ServiceError):
                self._fault = self._fault or self._find_fault(decoder)

    def _find_fault(self, decoder: Decoder) -> Exception | None:
        """Return the error with which a blank image fails, too; None if it does not."""
        try:
            self._model.check_decoder(decoder)
        except Exception as error:  # noqa: BLE001
            # Of whatever kind: it is the worker that is broken.
            return error
        return None
