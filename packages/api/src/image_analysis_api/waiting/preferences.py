"""How long a client wants to wait for its answer: `Prefer: wait=N` (RFC 7240) and `?wait=N`."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from fastapi import Request, Response

from image_analysis_api.access.admission import caller
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.server.counts import read_count
from image_analysis_api.waiting.room import WaitingRoom, dismissed_on_disconnect
from image_analysis_common.errors import JobNotFound, RequestError, TooManyWaiters, Unavailable, UnreadableRecord
from image_analysis_common.records import Progress

MAX_WAIT_S = 60
"""Longer than this, proxies cut a connection on which nothing comes."""

WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


async def wait_as_preferred(
    room: WaitingRoom, request: Request, response: Response, answer: AnalysisStatus, owner: str | None
) -> AnalysisStatus:
    """Wait for a job that was just accepted, as long as the request prefers; return its status then.

    The job is accepted already: an error while waiting only ends the wait.
    """
    preference = WAIT.search(",".join(request.headers.getlist("prefer")))
    wait_s = min(int(preference[1]), MAX_WAIT_S) if preference else 0
    if not wait_s:
        return answer
    try:
        progress = await _wait(room, request, answer.job_id, owner, wait_s)
    except (JobNotFound, Unavailable):
        return answer
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    return AnalysisStatus.of(answer.job_id, progress.record)


async def wait_as_asked(room: WaitingRoom, request: Request, job_ids: Iterable[UUID], owner: str | None) -> bool:
    """Wait until jobs have ended, as long as the query asks for; not at all where too many wait already.

    Says whether it waited for any.

    Raises:
        RequestError: it asks for what is no number of seconds, or too many.
        StoreUnavailable
    """
    if not request.scope["query_string"]:
        return False
    wait_s = read_count(request.query_params.get("wait", "0"))
    if wait_s is None or wait_s > MAX_WAIT_S:
        raise RequestError(f"wait must be a whole number of seconds from 0 to {MAX_WAIT_S}.")
    end_s, has_waited = time.monotonic() + wait_s, False
    for job_id in job_ids:
        if (left_s := end_s - time.monotonic()) <= 0:
            break
        has_waited = True
        with suppress(JobNotFound, UnreadableRecord):
            try:
                progress = await _wait(room, request, job_id, owner, left_s)
            except TooManyWaiters:
                break
            if not progress.record.status.is_final:  # The time is up, the client has gone, or the process is about to.
                break
    return has_waited


async def _wait(room: WaitingRoom, request: Request, job_id: UUID, owner: str | None, wait_s: float) -> Progress:
    async with (
        room.enter(job_id, owner, caller(request, owner)) as waiter,
        dismissed_on_disconnect(waiter, request.receive),
    ):
        await waiter.wait_for_end(wait_s)
        return waiter.progress
