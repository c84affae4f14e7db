"""The model never returns: the worker notices it, stops its heartbeat, and ends, so that another takes over."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pytest_httpserver import HTTPServer

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, settled_state
from image_analysis_common.models import JobStatus
from support.collector import Span, collect, exporting_to
from support.images import Marker, marked, small_images, unique
from support.waiting import wait_until

TRACE_ID, CALLER_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
LIMIT_S = 3
RECOVERY_S = 20
EXIT_STUCK = 70
NOTICED_S = LIMIT_S + 5
"""A heartbeat comes every 3 s, and the 2 cores are busy."""


@dataclass(frozen=True)
class Hang:
    """The outcome of a worker whose model hung, of its jobs, and of the jobs in the queue."""

    exit_code: int
    noticed_s: float
    hung: tuple[JobStatus, str | None]
    others: list[JobStatus]
    recovered_s: float
    state: RedisState
    clean_state: RedisState
    ends: list[tuple[str, str]]
    """The log events of the job that hung, with their codes."""
    spans: list[Span]


@pytest.fixture(scope="module")
def hang(open_scenario: OpenScenario, make_httpserver: HTTPServer) -> Iterator[Hang]:
    spans = collect(make_httpserver)
    variables = {"JOB_TIMEOUT_SECONDS": str(LIMIT_S), "MAX_BATCH_SIZE": "1", **exporting_to(make_httpserver)}
    with open_scenario("hang") as scenario:
        first, second = (scenario.start_worker(variables) for _ in range(2))
        [hung] = scenario.submit([marked(Marker.HANGS_IN_CLASSIFY)])
        scenario.redis.hset(f"rq:job:{hung}", "meta", json.dumps({"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}))
        first.begin().report("classify")
        others = scenario.submit(unique(image) for image in small_images())
        assert first.wait_for_report() == 1
        hung_s = time.monotonic()
        exit_code = first.wait()
        ended_s = time.monotonic()
        second.begin()
        records = scenario.wait_for_end([hung, *others])
        recovered_s = time.monotonic()
        yield Hang(
            exit_code=exit_code,
            noticed_s=ended_s - hung_s,
            hung=(records[hung].status, error.code if (error := records[hung].error) else None),
            others=[records[job_id].status for job_id in others],
            recovered_s=recovered_s - ended_s,
            state=settled_state(scenario.redis, records, frozenset({second.name})),
            clean_state=RedisState.clean(records, frozenset({second.name})),
            ends=[
                (line["event"], line["code"])
                for line in first.log.events("job_failed", "job_completed", "job_retried")
                if line["job_id"] == hung
            ],
            spans=[span for span in spans if span.trace_id == TRACE_ID],
        )


def test_process_ends_itself_soon_after_the_limit(hang: Hang) -> None:
    assert (hang.exit_code, hang.noticed_s < NOTICED_S) == (EXIT_STUCK, True), hang.noticed_s


def test_job_that_hung_alone_fails_at_once(hang: Hang) -> None:
    assert hang.hung == (JobStatus.FAILED, "job_timeout")


def test_job_that_hung_is_logged_and_traced_like_every_other(hang: Hang) -> None:
    assert hang.ends == [("job_failed", "job_timeout")]
    assert [(span.name, span.parent_id, span.is_error) for span in hang.spans if span.name == "analyze_image"] == [
        ("analyze_image", CALLER_ID, True)
    ]


def test_other_jobs_go_on_elsewhere(hang: Hang) -> None:
    assert (set(hang.others), hang.recovered_s < RECOVERY_S) == ({JobStatus.COMPLETED}, True), hang.recovered_s


def test_redis_is_clean_after_a_hang(hang: Hang) -> None:
    assert hang.state == hang.clean_state


def test_stopped_process_does_not_wait_for_a_hung_decoder(open_scenario: OpenScenario) -> None:
    with open_scenario("hung-decoder") as scenario:
        worker = scenario.start_worker({"JOB_TIMEOUT_SECONDS": "20"}).begin()
        worker.report("decode")
        [job_id] = scenario.submit([marked(Marker.HANGS_IN_DECODE)])
        assert worker.wait_for_report() == 1

        worker.signal(signal.SIGTERM)

        assert worker.wait(timeout_s=25) in (0, EXIT_STUCK)
        wait_until(
            lambda: scenario.statuses([job_id]) != ["PROCESSING"], "the job is somebody else's again", RECOVERY_S
        )
