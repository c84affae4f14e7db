"""Waits for a job as long as the client asks for: `Prefer: wait=N` (RFC 7240) and `?wait=N`."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from fastapi import Request

from image_analysis_api.access.admission import caller
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.server.counts import read_count
from image_analysis_api.waiting.room import WaitingRoom, dismissed_on_disconnect
from image_analysis_common.errors import JobNotFound, RequestError, TooManyWaiters, Unavailable, UnreadableRecord
from image_analysis_common.records import Progress

MAX_WAIT_S = 60
"""Proxies close a connection that is silent for longer."""

WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?=$|[,;])', re.IGNORECASE)


async def wait_as_preferred(
    room: WaitingRoom, request: Request, headers: dict[str, str], answer: AnalysisStatus, owner: str | None
) -> AnalysisStatus:
    """Wait for a job that was just accepted, as long as the request prefers; return its status then.

    If it waited, it adds a header to those of the answer.

    An error while waiting only ends the wait, because the job is already accepted.
    """
    wait_s = _preferred_wait_s(request)
    if not wait_s:
        return answer
    try:
        progress = await _wait(room, request, answer.job_id, owner, wait_s)
    except (JobNotFound, Unavailable):
        return answer
    headers["Preference-Applied"] = f"wait={wait_s}"
    return AnalysisStatus.of(answer.job_id, progress.record)


async def wait_for_result(
    room: WaitingRoom, request: Request, answer: AnalysisStatus, owner: str | None
) -> AnalysisStatus:
    """Wait for a job as long as the request prefers, or as long as a wait may be; return its status then.

    Raises:
        TooManyWaiters: there is no place to wait.
        StoreUnavailable, UnreadableRecord
    """
    preferred_s = _preferred_wait_s(request)
    wait_s = MAX_WAIT_S if preferred_s is None else preferred_s
    try:
        progress = await _wait(room, request, answer.job_id, owner, wait_s)
    except TooManyWaiters as error:
        raise TooManyWaiters("Too many clients are waiting: send the same request again in a few seconds.") from error
    except JobNotFound:  # It has ended and was forgotten, all while the client came in.
        return answer
    return AnalysisStatus.of(answer.job_id, progress.record)


def _preferred_wait_s(request: Request) -> int | None:
    preferences = request.headers.getlist("prefer")
    preference = WAIT.search(",".join(preferences)) if preferences else None
    return min(int(preference[1]), MAX_WAIT_S) if preference else None


async def wait_as_asked(room: WaitingRoom, request: Request, job_ids: Iterable[UUID], owner: str | None) -> bool:
    """Wait until jobs have ended, as long as the query asks for; return whether it waited.

    If too many clients are waiting, it returns at once.

    Raises:
        RequestError: `wait` is not a number of seconds from 0 to `MAX_WAIT_S`.
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
            if (
                not progress.record.status.is_final
            ):  # The time is up, the client has disconnected, or the process is stopping.
                break
    return has_waited


async def _wait(room: WaitingRoom, request: Request, job_id: UUID, owner: str | None, wait_s: float) -> Progress:
    request.state.release()  # nothing keeps the body of a request that waits, not even of a GET
    async with (
        room.enter(job_id, owner, caller(request, owner)) as waiter,
        dismissed_on_disconnect(waiter, request.receive),
    ):
        started_s = time.perf_counter()
        try:
            await waiter.wait_for_end(wait_s)
        finally:
            request.state.waited_s += time.perf_counter() - started_s
        return waiter.progress
