"""The API's check of queued runs: every accepted job ends, also where no worker comes or RQ has lost it.

Every API process sweeps, in steps of one script each; what one of them has just checked, the others skip.
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
"""How long after its submission, and after each check, a run is checked again."""

CONFIRM_S = 5.0
"""A run that RQ seems to have lost is checked again after this long: rq-dashboard's "compact" takes the queue apart."""

INTERVAL_S = 1.0
PAUSE_S = 0.03
"""Between two steps when there is more to do: a step takes Redis 15 ms at most, and others must be served too."""

# Where a cancelled job's run fails, its followers get the code; of any other record, whatever it says, the run failed.
EVENTS = {JobStatus.PENDING: "job_requeued", JobStatus.CANCELLED: "job_cancelled"}

log = structlog.get_logger(__name__)


class Sweep:
    """Ends or queues anew what no worker will end; settles what a run with many followers has left to do."""

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
        self._is_away = False

    async def run(self) -> None:
        """Sweep until cancelled; wait where Redis is away."""
        while True:
            has_more = False
            try:
                has_more = await self.step()
                self._is_away = False
            except StoreUnavailable as error:
                if not self._is_away:
                    log.warning("sweep_interrupted", cause=repr(error.__cause__))
                self._is_away = True
            except Exception:
                # The last line of defence: without the sweep, jobs could stay open.
                log.exception("sweep_crashed")
            await asyncio.sleep(PAUSE_S if has_more else INTERVAL_S)

    async def step(self) -> bool:
        """Check some of the runs that are due; return whether there is more to do.

        Raises:
            StoreUnavailable: Redis did not answer in time; what the step did, if anything, stays done.
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
