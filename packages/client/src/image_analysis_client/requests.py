"""The API's calls as values: what is sent, but not how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

from image_analysis_client.deadline import NEVER, Deadline
from image_analysis_client.sources import Image
from image_analysis_client.values import Options

MAX_WAIT_S = 20
"""How long one call waits for a job's end; the API allows 60 s, but some proxies cut a silent connection earlier."""

Part = tuple[str, tuple[str | None, bytes]]


@dataclass
class Delivery:
    """How far a submission has come: without an answer, the API may have accepted it once all of it is sent."""

    is_unanswered: bool = False


@dataclass(frozen=True)
class Request:
    """One call; sending it again is safe.

    `form` has parts as httpx takes them; `json` is a body in its place. `extra_s` is how much longer than usual the
    answer may take, and `deadline` ends an attempt in any case. The API may hold back its answer to a submission until
    the job has ended or `waits_until`.
    """

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    form: Sequence[Part] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)
    extra_s: int = 0
    deadline: Deadline = NEVER
    waits_until: Deadline | None = None
    delivery: Delivery = field(default_factory=Delivery)

    @property
    def wait_s(self) -> int:
        """How long the API may hold back its answer to an attempt that begins now."""
        return int(self.waits_until.left_s(MAX_WAIT_S)) if self.waits_until else 0


def submit_image(image: Image, options: Options, waits_until: Deadline | None = None) -> Request:
    """Submit one image; with `waits_until`, the answer may be the job's end."""
    form, fetch_s = _form([image], options), _fetch_s([image])
    return Request("POST", "analyze-image", _once(), form, extra_s=fetch_s, waits_until=waits_until)


def submit_images(images: Sequence[Image], options: Options) -> Request:
    """Submit many images; the files come first."""
    return Request("POST", "analyze-images", _once(), _form(images, options), extra_s=_fetch_s(images))


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


def train(name: str, examples: Sequence[Mapping[str, str]], model: str | None, *, adds: bool) -> Request:
    """Train a classifier on these examples, alone or `adds` them to those that it has."""
    query = f"?model={quote(model, safe='')}" if model is not None else ""
    path = f"{_classifier(name)}/examples{query}" if adds else f"{_classifier(name)}{query}"
    return Request("POST" if adds else "PUT", path, _once(), json={"examples": examples})


def list_classifiers() -> Request:
    """Ask for the caller's classifiers."""
    return Request("GET", "classifiers")


def read_classifier(name: str) -> Request:
    """Ask for one classifier."""
    return Request("GET", _classifier(name))


def delete_classifier(name: str) -> Request:
    """Delete a classifier, with what it has learned."""
    return Request("DELETE", _classifier(name))


def _classifier(name: str) -> str:
    return f"classifiers/{quote(name, safe='')}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _once() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid4())}


def _fetch_s(images: Sequence[Image]) -> int:
    """Say how long the API may fetch: 16 images of a request at once, 10 s each, unless its operator changed that."""
    return 10 * ceil(sum(image.url is not None for image in images) / 16)


def _wait(wait_s: int) -> str:
    return f"?wait={wait_s}" if wait_s else ""


def _form(images: Sequence[Image], options: Options) -> list[Part]:
    texts = [(name, _text(value)) for name, value in options.items() if name != "labels"]
    labels = options.get("labels", ())
    # The API splits a single text at its commas: with an empty one after it, it is one label.
    texts += [("labels", label) for label in (labels if len(labels) != 1 else (*labels, ""))]
    fields: list[Part] = [(name, (None, text.encode())) for name, text in texts]
    for image in images:
        if image.url is not None:
            fields.append(("image_url", (None, image.url.encode())))
        else:
            fields.append(("file", ("image", image.content or b"")))
    return fields
