"""Prometheus metrics of one API process; Prometheus scrapes each process separately.

No label value comes from a client: a method or route that the service does not know counts as `other`.
"""

from functools import cache

from prometheus_client import Counter, Histogram
from starlette.types import Scope

WEBSOCKET = "WEBSOCKET"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", WEBSOCKET})
OTHER = "other"
# From a cached answer to an image that has to be fetched. Streams take longer.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter(
    "image_analysis_http_requests_total",
    "Requests answered; the status `aborted` is a request that ended without an answer",
    ["method", "route", "status"],
)
LATENCY = Histogram(
    "image_analysis_http_request_duration_seconds",
    "Time from a request's head to the end of its answer, without the wait that a client asked for",
    ["method", "route"],
    buckets=LATENCY_BUCKETS_S,
)
PROBLEMS = Counter("image_analysis_http_problems_total", "Requests refused or failed, by the problem's code", ["code"])
SUBMISSIONS = Counter(
    "image_analysis_submissions_total",
    "Images: `queued`, `coalesced` with a job that runs the same image, `cached`, or `refused` in a batch",
    ["outcome"],
)
RATE_LIMIT_VERDICTS = Counter(
    "image_analysis_rate_limit_verdicts_total",
    "Submissions `admitted` and `refused` by the rate limit, or `uncounted` without Redis",
    ["verdict"],
)
FETCHES = Counter(
    "image_analysis_fetches_total", "Images fetched by URL: `fetched`, `aborted`, or the problem's code", ["outcome"]
)


def count_request(scope: Scope, status: int, latency_s: float) -> None:
    """Count a request that has ended, by the path template of its route. Status 0 means that it got no answer."""
    method = scope.get("method", WEBSOCKET)
    method = method if method in METHODS else OTHER
    path = getattr(scope.get("route"), "path", OTHER)
    _count(method, path, status).inc()
    _latency(method, path).observe(latency_s)


# Without the caches, each lookup of labels would take 2 microseconds, more than the counting.
@cache
def labeled(counter: Counter, value: str) -> Counter:
    """Return the part of a counter that has this value of its only label."""
    return counter.labels(value)


@cache
def _count(method: str, path: str, status: int) -> Counter:
    return REQUESTS.labels(method, path, str(status) if status else "aborted")


@cache
def _latency(method: str, path: str) -> Histogram:
    return LATENCY.labels(method, path)
