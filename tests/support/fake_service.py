"""The API as a client sees it, in this process: every image is classified when it is asked for."""

import json
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx

MODEL = {"id": "m", "revision": "1", "preprocessing": "1"}
RESULT = {"label": "cat", "confidence": 0.9, "predictions": [{"label": "cat", "confidence": 0.9}], "model": MODEL}
URL = "http://service.test"
Fault = Callable[[httpx.Request], httpx.Response] | httpx.Response | Exception
Run = Callable[..., tuple[int, str, str]]
"""Runs the command line with arguments; returns its exit code, its standard output and its standard error."""


def make_classifier(name: str, examples: dict[str, int]) -> dict[str, Any]:
    """Make a classifier that takes each label once for the next one."""
    labels = sorted(examples)
    counts = [
        [
            examples[label] - (label != labels[-1]) if row == column else int(column == row + 1)
            for column in range(len(labels))
        ]
        for row, label in enumerate(labels)
    ]
    return {
        "name": name,
        "labels": labels,
        "examples": examples,
        "model": MODEL,
        "accuracy": sum(row[place] for place, row in enumerate(counts)) / sum(examples.values()),
        "confusion": {"labels": labels, "counts": counts},
        "trained_at": "2026-11-29T18:00:00Z",
        "training_ms": 812.0,
    }


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    """Make an error as the API answers it."""
    body = {"code": code, "detail": f"The detail of {code}.", "request_id": "r1"}
    kind = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, json=body, headers=kind | {n.replace("_", "-"): v for n, v in headers.items()})


class FakeService:
    """A handler of requests, for `httpx.MockTransport` and for respx.

    Without `is_working`, jobs stay PENDING. `faults` has the responses and exceptions that come before the usual
    answers, in order, by method and first part of the path.
    """

    def __init__(self, *, max_images: int = 64, quota: int | None = None) -> None:
        self.faults: dict[tuple[str, str], deque[Fault]] = {}
        self.requests: list[tuple[str, str]] = []
        self.forms: list[httpx.Request] = []
        self.keys: list[str] = []
        self.batches: list[int] = []
        self.batch_bytes: list[int] = []
        self.statuses: dict[UUID, str] = {}
        self.failures: dict[UUID, str] = {}
        self.refused_images: deque[str] = deque()
        self.quota = quota
        self.max_images = max_images
        self.is_working = True
        self.result: dict[str, Any] = RESULT
        self.classifiers: dict[str, dict[str, Any]] = {}
        self.trainings: list[httpx.Request] = []
        self._trained: dict[UUID, str] = {}
        self._training_of: dict[str, UUID] = {}
        self._jobs_of: dict[str, list[UUID]] = {}
        self._batch_of: dict[str, str] = {}

    def fail(self, method: str, path: str, *faults: Fault) -> None:
        """Answer the next calls by these faults."""
        self.faults.setdefault((method, path), deque()).extend(faults)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method, (_, path, *rest) = request.method, request.url.path.split("/")
        self.requests.append((method, path))
        if key := request.headers.get("Idempotency-Key"):
            self.keys.append(key)
            self.forms.append(request)
        if faults := self.faults.get((method, path)):
            fault = faults.popleft()
            if isinstance(fault, Exception):
                raise fault
            return fault if isinstance(fault, httpx.Response) else fault(request)
        match method, path:
            case "GET", "models":
                return httpx.Response(200, json={"models": []}, headers=self._quota_headers())
            case "POST", "analyze-image":
                return httpx.Response(202, json=self._add())
            case "POST", "analyze-images":
                return self._take(request)
            case "GET", "analysis-batches":
                return httpx.Response(200, json=self._batch(rest[0], ends=True))
            case "GET", "analysis-status":
                return httpx.Response(200, json=self._status(UUID(rest[0]), ends=True))
            case "DELETE", "analysis":
                return self._cancel(UUID(rest[0]))
            case "GET", "classifiers" if not rest:
                return httpx.Response(200, json={"classifiers": [*self.classifiers.values()]})
            case _, "classifiers":
                return self._handle_classifier(request, *rest)
        return problem(404, "not_found")

    def _handle_classifier(self, request: httpx.Request, name: str, *_: str) -> httpx.Response:
        known = self.classifiers.get(name)
        if request.method != "PUT" and not known:
            return problem(404, "classifier_not_found")
        if request.method == "GET":
            return httpx.Response(200, json=known)
        if request.method == "DELETE":
            del self.classifiers[name]
            return httpx.Response(204)
        return httpx.Response(202, json=self._train(request, name, known) | {"classifier": name})

    def _train(self, request: httpx.Request, name: str, known: dict[str, Any] | None) -> dict[str, Any]:
        key = request.headers["Idempotency-Key"]
        if key in self._training_of:
            return self._status(self._training_of[key], ends=False)
        self.trainings.append(request)
        counts = Counter(example["label"] for example in json.loads(request.read())["examples"])
        if known and request.method == "POST":
            counts.update(known["examples"])
        self.classifiers[name] = make_classifier(name, counts)
        job = self._add()
        job_id = self._training_of[key] = UUID(job["job_id"])
        self._trained[job_id] = name
        return job

    def _take(self, request: httpx.Request) -> httpx.Response:
        content, key = request.read(), request.headers["Idempotency-Key"]
        if key in self._batch_of:
            return httpx.Response(202, json=self._batch(self._batch_of[key], ends=False))
        images = content.count(b'name="file"') + content.count(b'name="image_url"')
        if images > self.max_images:
            return problem(413, "batch_too_large")
        if self.quota is not None and images > self.quota:
            return problem(429, "rate_limited", Retry_After="1", **self._quota_headers())
        self.quota = None if self.quota is None else self.quota - images
        self.batches.append(images)
        self.batch_bytes.append(len(content))
        batch_id = self._batch_of[key] = str(uuid4())
        jobs = self._jobs_of[batch_id] = [UUID(self._add()["job_id"]) for _ in range(images)]
        for job_id in jobs[: len(self.refused_images)]:
            self.statuses[job_id], self.failures[job_id] = "FAILED", self.refused_images.popleft()
        return httpx.Response(202, json=self._batch(batch_id, ends=False), headers=self._quota_headers())

    def _quota_headers(self) -> dict[str, str]:
        if self.quota is None:
            return {}
        return {"RateLimit-Policy": '"default";q=10;w=1', "RateLimit": f'"default";r={self.quota};t=1'}

    def _add(self) -> dict[str, Any]:
        job_id = uuid4()
        self.statuses[job_id] = "PENDING"
        return self._status(job_id, ends=False)

    def _batch(self, batch_id: str, *, ends: bool) -> dict[str, Any]:
        jobs = [self._status(job_id, ends=ends) for job_id in self._jobs_of[batch_id]]
        return {"batch_id": batch_id, "total": len(jobs), "jobs": jobs}

    def _status(self, job_id: UUID, *, ends: bool) -> dict[str, Any]:
        if ends and self.is_working and self.statuses[job_id] == "PENDING":
            self.statuses[job_id] = "COMPLETED"
        status = self.statuses[job_id]
        body: dict[str, Any] = {"job_id": str(job_id), "status": status}
        if status == "COMPLETED":
            name = self._trained.get(job_id)
            body |= {"classifier": self.classifiers[name]} if name else {"result": self.result}
        if status == "FAILED":
            body["error"] = {"code": self.failures[job_id], "detail": "It failed."}
        return body

    def _cancel(self, job_id: UUID) -> httpx.Response:
        if self.statuses[job_id] == "PENDING":
            self.statuses[job_id] = "CANCELLED"
            return httpx.Response(200, json=self._status(job_id, ends=False))
        return httpx.Response(204)
