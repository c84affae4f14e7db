"""Traces of a real API and a real worker, sent to a collector: one trace leads from the request to its job's end."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_httpserver import HTTPServer
from redis import Redis

from image_analysis_common.keys import workers
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from support.api_processes import WORKER, one_api, run_service
from support.collector import Span, collect, exporting_to
from support.replies import raw
from support.samples import base64_body, make_jpeg, make_png
from support.waiting import wait_until

TRACE_ID, OTHER_TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
CALLER_ID = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def spans(make_httpserver: HTTPServer) -> list[Span]:
    """All spans that the collector has received so far."""
    return collect(make_httpserver)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def service(
    redis_of_module: Redis, redis_url: str, make_httpserver: HTTPServer, spans: list[Span], logs: Path
) -> Iterator[str]:
    """An API and a worker with a model that no other test uses, both with traces; their log lines are in `logs`."""
    model = logs / "traced"
    model.symlink_to(BUNDLED_FOLDER)
    variables = {
        "MODEL_ID": str(model),
        "LOG_LEVEL": "INFO",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **exporting_to(make_httpserver),
    }
    with (
        run_service(WORKER, redis_url, logs / "worker.log", **variables),
        one_api(redis_url, logs / "api.log", **variables) as url,
    ):
        wait_until(lambda: redis_of_module.exists(workers("traced")), "a worker is there")
        yield url


def submit(url: str, image: bytes, trace_id: str) -> str:
    """Submit an image with the caller's trace ID; return the job's ID when it has ended."""
    headers = {"traceparent": f"00-{trace_id}-{CALLER_ID}-01"}
    answer = httpx.post(f"{url}/analyze-image", json=base64_body(image), headers=headers, trust_env=False)
    job_id: str = answer.json()["job_id"]

    def has_ended() -> bool:
        status = httpx.get(f"{url}/analysis-status/{job_id}", trust_env=False).json()["status"]
        return status in ("COMPLETED", "FAILED")

    wait_until(has_ended, "the job ends")
    return job_id


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_one_trace_leads_from_the_request_through_the_queue_to_the_model(
    service: str, spans: list[Span], logs: Path
) -> None:
    job_id = submit(service, make_png(1), TRACE_ID)

    def find(name: str) -> Span | None:
        return next((span for span in spans if (span.trace_id, span.name) == (TRACE_ID, name)), None)

    request = wait_until(lambda: find("POST /analyze-image"), "the request's span arrives")
    job = wait_until(lambda: find("analyze_image"), "the job's span arrives")
    decode, inference = (wait_until(partial(find, name), name) for name in ("decode", "inference"))

    assert (request.service, request.parent_id) == ("image-analysis-api", CALLER_ID)
    assert job.service == "image-analysis-worker"
    in_api = {span.span_id for span in spans if span.trace_id == TRACE_ID and span.service == request.service}
    assert job.parent_id in in_api
    assert [span.parent_id for span in (decode, inference)] == [job.span_id] * 2
    moments_ns = [job.start_ns, decode.start_ns, decode.end_ns, inference.start_ns, inference.end_ns, job.end_ns]
    assert moments_ns == sorted(moments_ns)
    assert not any(span.is_error for span in (request, job, decode, inference))

    lines = log_lines(logs / "api.log") + log_lines(logs / "worker.log")
    traced = [line for line in lines if line.get("trace_id") == TRACE_ID]
    assert {line["event"] for line in traced} == {"job_enqueued", "request_ended", "job_completed"}
    assert [line["job_id"] for line in traced if line["event"] == "job_completed"] == [job_id]


def test_damaged_image_ends_its_span_as_an_error_and_never_sees_the_model(service: str, spans: list[Span]) -> None:
    submit(service, make_jpeg(1, size_px=(300, 300))[:3000], OTHER_TRACE_ID)

    def find() -> Span | None:
        return next((span for span in spans if (span.trace_id, span.name) == (OTHER_TRACE_ID, "analyze_image")), None)

    job = wait_until(find, "its span arrives")

    assert job.is_error
    assert {span.name for span in spans if span.parent_id == job.span_id} == {"decode"}


def test_health_calls_leave_no_trace(service: str, spans: list[Span]) -> None:
    httpx.get(f"{service}/health/ready", trust_env=False)
    httpx.get(f"{service}/openapi.json", trust_env=False)

    wait_until(lambda: any("openapi.json" in span.name for span in spans), "the second call's span arrives")

    assert not [span.name for span in spans if "health" in span.name]


def test_without_the_variables_nothing_is_traced(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    with one_api(redis_url, tmp_path / "api.log", LOG_LEVEL="INFO", MODEL_ID="untraced") as url:
        headers = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
        answer = httpx.post(f"{url}/analyze-image", json=base64_body(make_png(1)), headers=headers, trust_env=False)

    meta = json.loads(raw(redis.hget(f"rq:job:{answer.json()['job_id']}", "meta")))
    assert meta.keys() == {"request_id"}
    assert not any("trace_id" in line for line in log_lines(tmp_path / "api.log"))
