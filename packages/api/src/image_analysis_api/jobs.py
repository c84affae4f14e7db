"""The calls by which owners look after their jobs: list them, take one back."""

import re
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response, status

from image_analysis_api.access import Admit
from image_analysis_api.analysis import parse_job_id
from image_analysis_api.cancellation import Cancellation, Outcome
from image_analysis_api.listing import Listing
from image_analysis_api.openapi import describe_errors
from image_analysis_api.openapi_waiting import LIST_PARAMETERS
from image_analysis_api.routes import JobId
from image_analysis_api.schemas import AnalysisList, AnalysisStatus, ListedAnalysis
from image_analysis_common.errors import JobNotFound, KeysRequired, RequestError, StoreUnavailable
from image_analysis_common.models import JobStatus

MAX_LIMIT = 100
Owner = Annotated[str | None, Depends(Admit(cost=0))]
router = APIRouter(tags=["analysis"])


@router.delete(
    "/analysis/{job_id}",
    summary="Take a job back",
    response_model=None,
    responses={
        status.HTTP_200_OK: {"model": AnalysisStatus, "description": "The job waited, and is CANCELLED"},
        status.HTTP_202_ACCEPTED: {
            "model": AnalysisStatus,
            "description": "It runs, and is CANCELLED when it ends",
        },
        status.HTTP_204_NO_CONTENT: {"description": "The job had ended, and is forgotten"},
        **describe_errors(RequestError, JobNotFound, StoreUnavailable),
    },
)
async def cancel_analysis(
    request: Request, response: Response, job_id: JobId, owner: Owner
) -> AnalysisStatus | Response:
    """Cancel a job that has not ended; forget one that has.

    A waiting job leaves the queue with its image. A running one ends as CANCELLED, and its result is dropped. Of an
    ended one the answer is forgotten, and the cached result of its image where no other job was answered with it.
    Jobs that brought the same image meanwhile get their answer all the same. To cancel twice changes nothing more; a
    job that was forgotten is 404.
    """
    identifier = parse_job_id(job_id)
    match await cast(Cancellation, request.app.state.cancellation).cancel(identifier, owner):
        case Outcome.FORGOTTEN:
            return Response(status_code=status.HTTP_204_NO_CONTENT)
        case Outcome.ENDING:
            response.status_code = status.HTTP_202_ACCEPTED
            return AnalysisStatus(job_id=identifier, status=JobStatus.PROCESSING)
        case Outcome.CANCELLED:
            return AnalysisStatus(job_id=identifier, status=JobStatus.CANCELLED)


@router.get(
    "/analyses",
    summary="List your jobs",
    responses={
        status.HTTP_200_OK: {"description": "Your jobs, newest first"},
        **describe_errors(RequestError, KeysRequired, StoreUnavailable),
    },
    openapi_extra={"parameters": LIST_PARAMETERS},
)
async def list_analyses(request: Request, owner: Owner) -> AnalysisList:
    """List the jobs that were submitted with your API key's name, newest first, until they expire.

    Ask again with `next_cursor` as `cursor` for those that came before; null is the end. With a `status`, a page may
    hold less than `limit` before the end. Where the service has no API keys, nobody's jobs can be told from another's:
    403.
    """
    if owner is None:
        raise KeysRequired("This service has no API keys, so it cannot tell whose jobs are whose: set API_KEYS.")
    query = request.query_params
    limit, wanted = query.get("limit", "20"), query.get("status")
    if not re.fullmatch("[0-9]{1,9}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise RequestError(f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    if wanted is not None and wanted not in JobStatus.__members__:
        raise RequestError(f"status must be one of {', '.join(JobStatus)}.")
    entries, next_cursor = await cast(Listing, request.app.state.listing).page(
        owner, limit=int(limit), status=JobStatus(wanted) if wanted else None, cursor=query.get("cursor")
    )
    return AnalysisList(analyses=[ListedAnalysis.of_entry(entry) for entry in entries], next_cursor=next_cursor)
