"""The thread that sends heartbeats while the worker makes progress, and sweeps for dead workers."""

import os
import threading

import structlog
from redis.exceptions import RedisError

from image_analysis_common import keys
from image_analysis_common.job_errors import JobTimeout
from image_analysis_common.tracing import flush_traces
from image_analysis_worker.outage import FIRST_WAIT_S
from image_analysis_worker.rq.maintenance import Maintenance
from image_analysis_worker.threads.shared import Shared

EXIT_STUCK = 70
"""The exit code of a worker that ended itself because a step never came back."""

FLUSH_S = 2.0
"""How long such a worker waits for the collector of its traces."""

log = structlog.get_logger(__name__)


class Heartbeat(threading.Thread):
    """Beats and sweeps until it is stopped; ends the process when a step is stuck."""

    def __init__(self, shared: Shared, maintenance: Maintenance) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._maintenance = maintenance
        self._shared = shared
        self._is_stopped = threading.Event()

    def run(self) -> None:
        interval_s = min(keys.HEARTBEAT_INTERVAL_S, self._shared.watchdog.limit_s / 2)
        # At once when it starts: where workers die young, no other may live long enough to sweep. After an outage the
        # first beat counts: until then this worker's jobs look abandoned.
        wait_s = 0.0
        was_stuck = False
        while not self._is_stopped.wait(wait_s):
            wait_s = interval_s
            is_stuck = self._shared.watchdog.find_stuck() is not None
            # Twice: a process that was frozen finds every step too long when it thaws.
            if is_stuck and was_stuck:
                self._end_process()
            was_stuck = is_stuck
            try:
                self._maintenance.beat()
                # While Redis was away nobody could beat: the others get the time to do so before they count as dead.
                if self._shared.outage.back_for_s > keys.WORKER_TTL_S:
                    self._maintenance.sweep()
                self._shared.outage.note(None)
            except RedisError as error:
                self._shared.outage.note(error)
                wait_s = FIRST_WAIT_S

    def stop(self) -> None:
        self._is_stopped.set()
        self.join()

    def _end_process(self) -> None:
        """Fail the job that is stuck if it is alone, give back what is not stuck, and end at once.

        A thread in a C call cannot be stopped, so the process goes. Several jobs that are stuck together come back one
        by one.
        """
        stuck = list(self._shared.watchdog.find_stuck() or ())
        log.error("worker_stuck", limit_s=self._shared.watchdog.limit_s, job_ids=[work.job_id for work in stuck])
        try:
            in_hand = self._shared.in_flight.close()
            self._shared.batch_worker.give_back([work for work in in_hand if work not in stuck])
            if len(stuck) == 1 and (stuck[0] in in_hand or self._shared.in_flight.holds(stuck[0])):
                stuck[0].end(JobTimeout(limit_s=self._shared.watchdog.limit_s))
                self._shared.batch_worker.finish(stuck)
        except RedisError as error:
            log.warning("store_unavailable", cause=repr(error))
        flush_traces(FLUSH_S)
        os._exit(EXIT_STUCK)
