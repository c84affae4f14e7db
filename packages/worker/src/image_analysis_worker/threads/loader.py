"""The thread that takes jobs from the queue, and the threads that decode their images, while the model runs."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from redis.exceptions import RedisError

from image_analysis_worker.engines.engine import Decoder
from image_analysis_worker.jobs.in_flight import Job
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.threads.shared import Shared

POLL_S = 1
"""How long a pop blocks, and so the longest that a stopping worker waits for its loader."""


class Loader(threading.Thread):
    """Takes jobs and decodes their images until the worker stops."""

    def __init__(self, shared: Shared, *, open_decoder: Callable[[], Decoder], decoders: int) -> None:
        super().__init__(name="loader")
        self._shared = shared
        self._open_decoder = open_decoder
        self._is_suspect_next = False
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
        if not self._shared.in_flight.add(jobs):
            self._shared.batch_worker.give_back(jobs)
            return
        for job in jobs:
            self._undecoded.put(job)
        if self._is_suspect_next:
            self._shared.in_flight.wait_until_empty(POLL_S)

    def _decode(self) -> None:
        decoder = self._open_decoder()
        while True:
            job = self._undecoded.get()
            if not job.has_ended and self._shared.in_flight.has(job):
                with self._shared.watchdog.step([job]), STAGES.measure("decode", job.stages):
                    try:
                        job.input = decoder.decode(job.image)
                        job.image = b""
                    except Exception as error:  # noqa: BLE001
                        # The last line of defense: the job ends with this error, and the others continue.
                        job.end(error)
            self._shared.in_flight.mark_ready(job)
