"""The metrics of a worker: how jobs end, and the time in each stage."""

import threading

import pytest
from prometheus_client import REGISTRY

from image_analysis_common.job_errors import CorruptImage
from image_analysis_common.models import AnalysisResult, JobStatus, ModelRef
from image_analysis_worker.jobs.outcomes import report_end
from image_analysis_worker.metrics import Stages
from support.jobs import make_job
from support.scraping import values
from support.waiting import wait_until

RESULT = AnalysisResult(
    label="cat", confidence=1, predictions=[], model=ModelRef(id="m", revision="1", preprocessing="1")
)


def seconds(stages: Stages) -> dict[str, float]:
    return {stage: value for (stage,), value in values(stages.collect(), "worker_stage_seconds_total").items()}


def durations() -> float:
    return REGISTRY.get_sample_value("image_analysis_job_duration_seconds_count") or 0


@pytest.mark.parametrize(
    ("outcome", "status", "labels"),
    [
        (RESULT, JobStatus.COMPLETED, {"outcome": "completed", "code": ""}),
        (CorruptImage("no image"), JobStatus.FAILED, {"outcome": "failed", "code": "corrupt_image"}),
        (RuntimeError("a fault"), JobStatus.PENDING, {"outcome": "retried", "code": "internal_error"}),
        (RuntimeError("a fault"), JobStatus.FAILED, {"outcome": "failed", "code": "internal_error"}),
        (RESULT, JobStatus.CANCELLED, {"outcome": "cancelled", "code": ""}),
        (CorruptImage("no image"), JobStatus.CANCELLED, {"outcome": "cancelled", "code": ""}),
        (None, JobStatus.CANCELLED, {"outcome": "cancelled", "code": ""}),
    ],
)
def test_job_counts_once_by_the_end_that_was_written(
    outcome: AnalysisResult | Exception | None, status: JobStatus, labels: dict[str, str]
) -> None:
    def counts() -> tuple[float, float]:
        return REGISTRY.get_sample_value("image_analysis_jobs_total", labels) or 0, durations()

    job = make_job()
    if outcome is not None:
        job.end(outcome)

    jobs, ended = counts()
    report_end(job, status)

    assert counts() == (jobs + 1, ended + 1)


def test_end_that_was_not_written_does_not_count() -> None:
    job, ended = make_job(), durations()
    job.end(RESULT)

    report_end(job, None)

    assert durations() == ended


def test_stage_under_way_counts_before_it_ends() -> None:
    stages, may_end = Stages("wait", "store"), threading.Event()

    @stages.measure("wait")
    def wait() -> None:
        may_end.wait(30)

    thread = threading.Thread(target=wait)
    thread.start()
    meanwhile = wait_until(lambda: seconds(stages)["wait"], "the stage shows")
    may_end.set()
    thread.join()

    after = seconds(stages)
    assert after["wait"] >= meanwhile > 0
    assert after["store"] == 0
    assert seconds(stages) == after


def test_stage_counts_the_time_of_a_block_that_raises() -> None:
    stages = Stages("decode")

    with pytest.raises(CorruptImage), stages.measure("decode"):
        raise CorruptImage("no image")

    ended = seconds(stages)
    assert ended["decode"] > 0
    assert seconds(stages) == ended
