"""What the OpenAPI document says of the call that the service makes when a job has ended."""

from typing import Any

from fastapi import APIRouter, status

from image_analysis_api.openapi_bodies import SCHEMAS
from image_analysis_api.schemas import EXAMPLE_JOB_ID, AnalysisStatus

HEADERS = {
    "webhook-id": ("The same at every attempt: who gets it twice has been told already", f"msg_{EXAMPLE_JOB_ID}"),
    "webhook-timestamp": ("When this attempt was signed, in seconds since 1970", "1767225600"),
    "webhook-signature": (
        "`v1,` and the HMAC-SHA256, in base64, of ID, timestamp and body with dots between; several after a space each",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
}
PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }
    for name, (description, example) in HEADERS.items()
]
# Not as a parameter: FastAPI would describe what comes in apart from what goes out, under two names.
BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}{AnalysisStatus.__name__}"}}},
}
router = APIRouter(tags=["analysis"])


@router.post(
    "job-ended",
    summary="A job has ended",
    operation_id="tell_end",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_204_NO_CONTENT: {"description": "It has arrived; any other 2xx says so too"},
        "4XX": {"description": "It is not wanted, and not sent again; after a 429 it is"},
        "5XX": {"description": "It is sent again, after growing waits and for a day"},
    },
    openapi_extra={"parameters": PARAMETERS, "requestBody": BODY},
)
async def tell_end() -> None:
    """Sent to the `webhook_url` of a job, with the body that GET /analysis-status/{job_id} answers.

    The headers are those of Standard Webhooks: verify the signature with one of its libraries and the secret that the
    operator gave you. Answer within 15 seconds. What gets no answer, 429 or 5xx is sent again.
    """
