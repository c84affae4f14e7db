"""The calls by which owners look after their jobs: list them, take one back."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response, status

from image_analysis_api.access.admission import Admit
from image_analysis_api.jobs.cancellation import Cancellation, Outcome
from image_analysis_api.jobs.listing import Listing
from image_analysis_api.jobs.submit import parse_job_id
from image_analysis_api.openapi.document import describe_errors
from image_analysis_api.openapi.parameters import LIST_PARAMETERS
from image_analysis_api.responses import AnalysisList, AnalysisStatus, ListedAnalysis
from image_analysis_api.routes.analyses import JobId
from image_analysis_api.server.counts import read_count
from image_analysis_common.errors import JobNotFound, KeysRequired, RequestError, StoreUnavailable
from image_analysis_common.models import JobStatus

MAX_LIMIT = 100
Owner = Annotated[str | None, Depends(Admit(cost=0))]
router = APIRouter(tags=["analysis"])


@router.delete(
    "/analysis/{job_id}",
    summary="Cancel or forget a job",
    response_model=None,
    responses={
        status.HTTP_200_OK: {"model": AnalysisStatus, "description": "The job was waiting and is CANCELLED"},
        status.HTTP_202_ACCEPTED: {
            "model": AnalysisStatus,
            "description": "The job is running and will be CANCELLED when it ends",
        },
        status.HTTP_204_NO_CONTENT: {"description": "The job had ended and is forgotten"},
        **describe_errors(RequestError, JobNotFound, StoreUnavailable),
    },
)
async def cancel_analysis(
    request: Request, response: Response, job_id: JobId, owner: Owner
) -> AnalysisStatus | Response:
    """Cancel a job that has not ended; forget one that has.

    A waiting job leaves the queue, together with its image. A running job ends as CANCELLED, and its result is dropped.
    An ended job is forgotten, and so is the cached result of its image, unless another job was answered with it.
    Other jobs with the same image get their answer in any case. Cancelling twice changes nothing more; a forgotten job
    is a 404.
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
    """List the jobs that were submitted under your API key's name, newest first, until they expire.

    For the next page, send `next_cursor` as `cursor`; null is the end. With a `status`, a page may have fewer than
    `limit` jobs before the end. If the service has no API keys, it does not know its callers: the answer is a 403.
    """
    if owner is None:
        raise KeysRequired("This service does not know its callers: its operator has to set API_KEYS.")
    query = request.query_params
    limit, wanted = read_count(query.get("limit", "20")), query.get("status")
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        raise RequestError(f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    if wanted is not None and wanted not in JobStatus.__members__:
        raise RequestError(f"status must be one of {', '.join(JobStatus)}.")
    entries, next_cursor = await cast(Listing, request.app.state.listing).page(
        owner, limit=limit, status=JobStatus(wanted) if wanted else None, cursor=query.get("cursor")
    )
    return AnalysisList(analyses=[ListedAnalysis.of_entry(entry) for entry in entries], next_cursor=next_cursor)
