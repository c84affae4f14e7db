"""The parameters, headers and streams in the OpenAPI document for waiting and listing."""

from typing import Any

from image_analysis_api.jobs.listing import CURSOR
from image_analysis_api.responses import EXAMPLE_JOB_ID

PREFERENCE_APPLIED = {
    "Preference-Applied": {
        "description": "wait=N, if the request asked to wait and the service did",
        "schema": {"type": "string"},
    }
}
ACCEPTED_HEADERS: dict[str, Any] = {
    "Location": {"description": "Path of the job's status", "schema": {"type": "string"}},
    "Link": {"description": "Paths of the job's status and of its events (rel=monitor)", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds to wait before asking for the status",
        "schema": {"type": "integer", "minimum": 1},
    },
    **PREFERENCE_APPLIED,
}
BATCH_HEADERS: dict[str, Any] = {
    "Location": {"description": "Path of the batch's status", "schema": {"type": "string"}},
    "Retry-After": ACCEPTED_HEADERS["Retry-After"],
}
LIST_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "status",
        "in": "query",
        "description": "Only jobs with this status",
        "schema": {"$ref": "#/components/schemas/JobStatus"},
    },
    {
        "name": "limit",
        "in": "query",
        "description": "Most jobs on a page",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "The next_cursor of the previous page",
        "schema": {"type": "string", "pattern": f"^{CURSOR}$"},
    },
]
PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "description": "wait=N waits up to N seconds, 60 at most, for the end of the job (RFC 7240)",
    "schema": {"type": "string"},
    "example": "wait=10",
}
PREFER_SHORTER = PREFER | {"description": "wait=N waits N seconds at most, instead of 60 (RFC 7240)"}
WAIT: dict[str, Any] = {
    "name": "wait",
    "in": "query",
    "description": "Seconds to wait for the end of the job, or of all jobs of the batch",
    "schema": {"type": "integer", "minimum": 0, "maximum": 60, "default": 0},
    "example": 10,
}

EXAMPLE_STATUS = (
    f'{{"job_id":"{EXAMPLE_JOB_ID}","status":"%s","result":null,"error":null,"cached":false,"processing_time_ms":null}}'
)
EVENT_STREAM: dict[str, Any] = {
    "description": "Every status of the job as it comes",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            # OpenAPI 3.2's itemSchema: under 3.1, which FastAPI writes, strict generators refuse it.
            "x-itemSchema": {
                "type": "object",
                "properties": {
                    "event": {"type": "string", "const": "status"},
                    "id": {"type": "string", "pattern": "^[0-9]+$"},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/AnalysisStatus"},
                    },
                },
                "required": ["event", "id", "data"],
            },
            "example": "retry: 1000\n\n"
            + "".join(
                f"event: status\ndata: {EXAMPLE_STATUS % status}\nid: {step}\n\n"
                for step, status in enumerate(("PENDING", "PROCESSING"))
            ),
        }
    },
}
