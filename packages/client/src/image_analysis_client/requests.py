"""The API's calls as values: what is sent, but not how."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from urllib.parse import quote
from uuid import UUID, uuid4

from image_analysis_client.sources import Image
from image_analysis_client.values import Options

MAX_WAIT_S = 20
"""How long one call waits for a job's end; the API allows 60 s, but some proxies cut a silent connection earlier."""

Part = tuple[str, tuple[str | None, bytes]]


@dataclass(frozen=True)
class Request:
    """One call; sending it again is safe.

    `form` has parts as httpx takes them. `extra_s` is how much longer than usual the answer may take.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    form: Sequence[Part] | None = field(default=None, repr=False)
    extra_s: int = 0


def submit_image(image: Image, options: Options, wait_s: int = 0) -> Request:
    """Submit one image; with `wait_s`, the answer may be the job's end."""
    headers = _once() | ({"Prefer": f"wait={wait_s}"} if wait_s else {})
    return Request("POST", "analyze-image", headers, _form([image], options), _fetch_s([image]) + wait_s)


def submit_images(images: Sequence[Image], options: Options) -> Request:
    """Submit many images; the files come first."""
    return Request("POST", "analyze-images", _once(), _form(images, options), _fetch_s(images))


def read_job(job_id: UUID, wait_s: int = 0) -> Request:
    """Ask for a job's status, once it has ended or after `wait_s`."""
    return Request("GET", f"analysis-status/{job_id}{_wait(wait_s)}", extra_s=wait_s)


def read_batch(batch_id: UUID, wait_s: int = 0) -> Request:
    """Ask for a batch's jobs, once all have ended or after `wait_s`."""
    return Request("GET", f"analysis-batches/{batch_id}{_wait(wait_s)}", extra_s=wait_s)


def follow_job(job_id: UUID, last_event_id: str) -> Request:
    """Ask for the events that come after one, or for all of them."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    # A comment comes every 15 to 20 s at least: only a longer silence means that the connection is broken.
    return Request("GET", f"analysis-status/{job_id}/events", headers, extra_s=MAX_WAIT_S)


def cancel_job(job_id: UUID) -> Request:
    """Cancel a job, or forget one that has ended."""
    return Request("DELETE", f"analysis/{job_id}")


def list_models() -> Request:
    """Ask for the models; this costs nothing of the quota."""
    return Request("GET", "models")


def read_model(model_id: str) -> Request:
    """Ask for one model, with its labels."""
    return Request("GET", f"models/{quote(model_id, safe='/')}")


def _once() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def _fetch_s(images: Sequence[Image]) -> int:
    """Say how long the API may fetch: 16 images of a request at once, 10 s each, unless its operator changed that."""
    return 10 * ceil(sum(image.url is not None for image in images) / 16)


def _wait(wait_s: int) -> str:
    return f"?wait={wait_s}" if wait_s else ""


def _form(images: Sequence[Image], options: Options) -> list[Part]:
    fields: list[Part] = [(name, (None, str(value).encode())) for name, value in options.items()]
    for image in images:
        if image.url is not None:
            fields.append(("image_url", (None, image.url.encode())))
        else:
            fields.append(("file", ("image", image.content or b"")))
    return fields
