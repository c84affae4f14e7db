"""A job's steps as they come, over Server-Sent Events or a WebSocket: every status once, in order, then the end."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, WebSocket, status
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.websockets import WebSocketState

from image_analysis_api.access.admission import caller
from image_analysis_api.jobs.analyses import parse_job_id
from image_analysis_api.openapi.document import describe_errors
from image_analysis_api.openapi.parameters import EVENT_STREAM
from image_analysis_api.responses import AnalysisStatus
from image_analysis_api.routes.parameters import FoundServices, JobId, Reader
from image_analysis_api.server.counts import read_count
from image_analysis_api.waiting.room import Waiter, dismissed_on_disconnect
from image_analysis_common.errors import (
    JobNotFound,
    RequestError,
    ServiceError,
    StoreUnavailable,
    TooManyWaiters,
    UnreadableRecord,
)
from image_analysis_common.records import JobRecord

RECONNECT_MS = 1000
"""How long a browser waits before it comes again."""

router = APIRouter(tags=["analysis"])


async def wait_for_job(
    request: Request, job_id: JobId, owner: Reader, services: FoundServices
) -> AsyncIterator[Waiter]:
    """Keep a place in the waiting room until the answer is sent."""
    request.state.release()  # nothing keeps a body, which may arrive before the stream begins
    async with services.waiting_room.enter(parse_job_id(job_id), owner, caller(request, owner)) as waiter:
        yield waiter


@router.get(
    "/analysis-status/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        status.HTTP_200_OK: EVENT_STREAM,
        status.HTTP_204_NO_CONTENT: {
            "description": "The client has already seen the job's end: an EventSource stops here"
        },
        **describe_errors(RequestError, JobNotFound, StoreUnavailable, TooManyWaiters, UnreadableRecord),
    },
)
async def follow_job(request: Request, job_id: JobId, waiter: Annotated[Waiter, Depends(wait_for_job)]) -> Response:
    """Get every status of a job as a Server-Sent Event, from the first to the last; then the stream ends.

    An event's `data` is the body of `GET /analysis-status/{job_id}`, with the result in the last one. Its `id` counts
    the job's steps from 0: with `Last-Event-ID`, you get only what came after that step. A comment comes every 15 s
    while nothing happens. A stream ends after ten minutes, and when the service restarts: reconnect.

    The WebSocket `/ws/analysis-status/{job_id}` sends the same as JSON messages. It closes with 1000 after the job's
    end, with 1012 when you should reconnect, and with 4000 + an error's HTTP status and its code as the reason.
    """
    steps = waiter.progress.history
    last_seen = read_count(request.headers.get("last-event-id", ""))
    first = last_seen + 1 if last_seen is not None and last_seen < len(steps) else 0
    if first == len(steps) and waiter.has_ended:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    return StreamingResponse(
        _write_events(UUID(job_id), waiter, first),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would keep events back until it has a few kilobytes
    )


async def _write_events(job_id: UUID, waiter: Waiter, first: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RECONNECT_MS)
    try:
        async for step in waiter.steps(first):
            yield (
                KEEPALIVE_COMMENT
                if step is None
                else format_sse_event(event="status", id=str(step), data_str=_describe(job_id, waiter, step))
            )
    except (JobNotFound, UnreadableRecord):
        pass  # The client comes again, and gets the error as an answer.


def _describe(job_id: UUID, waiter: Waiter, step: int) -> str:
    """Write the status body as it was at a step."""
    progress = waiter.progress
    if step + 1 == len(progress.history):
        record = progress.record
    else:
        record = JobRecord(status=progress.history[step], image_hash=progress.record.image_hash)
    return AnalysisStatus.of(job_id, record).model_dump_json()


@router.websocket("/ws/analysis-status/{job_id}")
async def follow_job_by_websocket(websocket: WebSocket, job_id: str, services: FoundServices) -> None:
    """Send what `follow_job` sends, as text messages; refuse by a close code, which a browser can read."""
    await websocket.accept()
    code, reason = status.WS_1000_NORMAL_CLOSURE, ""
    try:
        owner, identifier = await services.admission.admit(websocket, 0), parse_job_id(job_id)
        async with (
            services.waiting_room.enter(identifier, owner, caller(websocket, owner)) as waiter,
            dismissed_on_disconnect(waiter, websocket.receive),
        ):
            async for step in waiter.steps():
                if step is not None:
                    await websocket.send_text(_describe(identifier, waiter, step))
            if not waiter.has_ended:
                code = status.WS_1012_SERVICE_RESTART
    except ServiceError as error:
        code, reason = 4000 + HTTPStatus(error.status), error.code
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(code, reason)
