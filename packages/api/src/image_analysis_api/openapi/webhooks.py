"""What the OpenAPI document says of the call that the service makes when a job has ended."""

from typing import Any

from fastapi import APIRouter, status

from image_analysis_api.openapi.bodies import SCHEMAS
from image_analysis_api.responses import EXAMPLE_JOB_ID, AnalysisStatus

HEADERS = {
    "webhook-id": ("The same at every attempt: ignore a message whose ID you have seen", f"msg_{EXAMPLE_JOB_ID}"),
    "webhook-timestamp": ("When this attempt was signed, in seconds since 1970", "1767225600"),
    "webhook-signature": (
        "`v1,` and the base64 HMAC-SHA256 of ID, timestamp and body, joined by dots; several are separated by spaces",
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
router = APIRouter(tags=["webhooks"])  # its own tag: OpenAPI Generator makes a class of each


@router.post(
    "job-ended",
    summary="A job has ended",
    operation_id="tell_end",
    status_code=status.HTTP_204_NO_CONTENT,
    responses={
        status.HTTP_204_NO_CONTENT: {"description": "Delivered; any other 2xx means the same"},
        "4XX": {"description": "Rejected: it is not sent again, except after a 429"},
        "5XX": {"description": "Failed: it is sent again with growing delays, for a day"},
    },
    openapi_extra={"parameters": PARAMETERS, "requestBody": BODY},
)
async def tell_end() -> None:
    """Sent to the `webhook_url` of a job that has ended, with the body of GET /analysis-status/{job_id}.

    The headers are those of Standard Webhooks. Verify the signature with one of its libraries and the secret that the
    operator gave you. Answer within 15 seconds. After no answer, a 429 or a 5xx, the message is sent again.
    """
