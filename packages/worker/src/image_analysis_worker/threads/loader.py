"""The thread that takes jobs from the queue and has their images decoded, ahead of the model."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from redis.exceptions import RedisError

from image_analysis_worker.engines.engine import Decoder
from image_analysis_worker.jobs.in_flight import Work
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
        self._undecoded: SimpleQueue[Work] = SimpleQueue()
        # Each has its own process, with one full-size picture in memory. A daemon, unlike an executor's thread,
        # does not keep the process from ending when it hangs in a C call.
        self._decoders = [threading.Thread(target=self._decode, name="decoder", daemon=True) for _ in range(decoders)]

    def run(self) -> None:
        for decoder in self._decoders:
            decoder.start()
        # Told to stop while Redis is away, there is an error left: what was popped comes back by itself.
        with suppress(RedisError), self._shared.watchdog.loop() as turn:
            while not self._shared.is_stopping.is_set():
                turn()
                self._load(turn)

    def _load(self, turn: Callable[[], None]) -> None:
        room = self._shared.in_flight.wait_for_room(POLL_S)
        if self._shared.batch_worker.is_suspended:
            self._shared.is_stopping.wait(POLL_S)
            return
        if not room:
            return
        limit = 1 if self._is_suspect_next else room

        def take() -> tuple[list[Work], bool]:
            turn()  # at each attempt: an outage may last
            return self._shared.batch_worker.take(limit, wait_s=POLL_S, is_alone=self._shared.in_flight.is_empty)

        works, self._is_suspect_next = self._shared.outage.insist(take)
        if not self._shared.in_flight.hold(works):
            self._shared.batch_worker.give_back(works)
            return
        for work in works:
            self._undecoded.put(work)
        if self._is_suspect_next:
            self._shared.in_flight.wait_until_empty(POLL_S)

    def _decode(self) -> None:
        decoder = self._open_decoder()
        while True:
            work = self._undecoded.get()
            if not work.has_ended and self._shared.in_flight.holds(work):
                with self._shared.watchdog.step([work]), STAGES.spend("decode", work.stages):
                    try:
                        work.input = decoder.decode(work.image)
                        work.image = b""
                    except Exception as error:  # noqa: BLE001
                        # The last line of defense: the job ends with this error, and the others continue.
                        work.end(error)
            self._shared.in_flight.offer(work)
