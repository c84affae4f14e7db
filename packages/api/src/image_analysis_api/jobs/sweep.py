"""Checks queued runs, so that every accepted job ends even if no worker takes it or RQ has lost it.

Every API process sweeps, one script at a time. A run that one process has just checked is skipped by the others.
"""

import asyncio

import structlog
from redis.asyncio import Redis

from image_analysis_api.store.client import run_script
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.job_errors import ImageExpired, JobLost
from image_analysis_common.metrics import JOBS
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.scripts import runs

CHECK_S = 10.0
"""Time from a run's submission to its first check, and between two checks."""

CONFIRM_S = 5.0
"""Time until a run that RQ seems to have lost is checked again: rq-dashboard's "compact" empties the queue briefly."""

INTERVAL_S = 1.0
PAUSE_S = 0.03
"""Time between two steps when more runs are due: a step blocks Redis for up to 15 ms, and others need it too."""

# The run of a cancelled job can fail: its followers get the error's code. With any other status, the run failed.
EVENTS = {JobStatus.PENDING: "job_requeued", JobStatus.CANCELLED: "job_cancelled"}

log = structlog.get_logger(__name__)


class Sweep:
    """Ends or requeues runs that no worker will end, and completes the end of runs with many followers."""

    def __init__(self, redis: Redis, *, check_s: float = CHECK_S, confirm_s: float = CONFIRM_S) -> None:
        self._redis = redis
        expired, lost = (JobFailure(code=error.code, detail=error.detail) for error in (ImageExpired(), JobLost()))
        self._call = runs.sweep(
            check_s=check_s,
            confirm_s=confirm_s,
            pause_ms=int(PAUSE_S * 1000 / 2),
            expired=expired.model_dump_json(),
            lost=lost.model_dump_json(),
        )
        for error in (ImageExpired, JobLost):
            JOBS.labels("failed", error.code)  # starts at 0: Prometheus does not see a new series as an increase
        self._is_redis_down = False

    async def run(self) -> None:
        """Sweep until cancelled; if Redis is down, try again later."""
        while True:
            has_more = False
            try:
                has_more = await self.step()
                self._is_redis_down = False
            except StoreUnavailable as error:
                if not self._is_redis_down:
                    log.warning("sweep_interrupted", cause=f"{type(error.__cause__).__name__}: {error.__cause__}")
                self._is_redis_down = True
            except Exception:
                # Last line of defence: without the sweep, some jobs would never end.
                log.exception("sweep_crashed")
            await asyncio.sleep(PAUSE_S if has_more else INTERVAL_S)

    async def step(self) -> bool:
        """Check some of the runs that are due; return whether more are due.

        Raises:
            StoreUnavailable: Redis did not answer in time. The step may have been executed.
        """
        found, has_more = await run_script(self._redis, self._call)
        for job_id, status, failure in found:
            event = EVENTS.get(status.decode(), "job_failed")
            code = {"code": JobFailure.model_validate_json(failure).code} if failure else {}
            log.warning(event, job_id=job_id.decode(), **code)
            if event == "job_cancelled":
                JOBS.labels("cancelled", "").inc()
            elif event == "job_failed":
                JOBS.labels("failed", code.get("code", "")).inc()
        return bool(has_more)
