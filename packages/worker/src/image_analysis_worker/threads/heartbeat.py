"""The thread that sends heartbeats while the worker makes progress, and requeues the jobs of dead workers."""

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
from image_analysis_worker.threads.trainer import Trainer

EXIT_STUCK = 70
"""The exit code of a worker that ended itself because a step hung."""

FLUSH_S = 2.0
"""How long such a worker waits to send its traces."""

log = structlog.get_logger(__name__)


class Heartbeat(threading.Thread):
    """Sends heartbeats and sweeps until it is stopped; ends the process if a step is stuck."""

    def __init__(self, shared: Shared, maintenance: Maintenance, trainer: Trainer) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._maintenance = maintenance
        self._trainer = trainer
        self._shared = shared
        self._is_stopped = threading.Event()

    def run(self) -> None:
        interval_s = min(keys.HEARTBEAT_INTERVAL_S, self._shared.watchdog.limit_s / 2)
        # The first sweep is at the start: if workers crash soon after starting, none may live for a whole interval.
        # After an outage the first heartbeat is urgent: until then, this worker's jobs look abandoned.
        wait_s = 0.0
        was_stuck = False
        while not self._is_stopped.wait(wait_s):
            wait_s = interval_s
            is_stuck = self._shared.watchdog.find_stuck() is not None
            # Only the second time: when a frozen process thaws, every step looks too long.
            if is_stuck and was_stuck:
                self._end_process()
            was_stuck = is_stuck
            try:
                self._maintenance.beat()
                # During an outage no worker could send heartbeats. Give them time to do so before they count as dead.
                if self._shared.outage.available_for_s > keys.WORKER_TTL_S:
                    self._maintenance.sweep()
                self._shared.outage.record(None)
            except RedisError as error:
                self._shared.outage.record(error)
                wait_s = FIRST_WAIT_S

    def stop(self) -> None:
        self._is_stopped.set()
        self.join()

    def _end_process(self) -> None:
        """Give back the jobs that are not stuck, also trainings, fail a job that is stuck alone, and end the process.

        A thread in a C call cannot be stopped, so the process must end. Jobs that are stuck together in one batch are
        requeued, and then run one by one.
        """
        stuck = list(self._shared.watchdog.find_stuck() or ())
        log.error("worker_stuck", limit_s=self._shared.watchdog.limit_s, job_ids=[job.job_id for job in stuck])
        try:
            rest = self._shared.in_flight.close()
            left = [job for job in rest if job not in stuck]
            self._shared.batch_worker.give_back(left + self._trainer.close())
            if len(stuck) == 1 and (stuck[0] in rest or self._shared.in_flight.has(stuck[0])):
                stuck[0].end(JobTimeout(limit_s=self._shared.watchdog.limit_s))
                self._shared.batch_worker.finish(stuck)
        except RedisError as error:
            log.warning("store_unavailable", cause=f"{type(error).__name__}: {error}")
        flush_traces(FLUSH_S)
        os._exit(EXIT_STUCK)
