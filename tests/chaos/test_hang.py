"""The model never returns: the worker notices by itself, stops to look alive, and makes way for another."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chaos.books import Books, settled_books
from chaos.conftest import OpenStage
from chaos.images import Marker, marked, small_images, unique
from image_analysis_common.models import JobStatus
from waiting import wait_until

LIMIT_S = 3
RECOVERY_S = 20
EXIT_STUCK = 70
NOTICED_S = LIMIT_S + 5
"""A beat comes every 3 s at most, and the 2 cores are busy."""


@dataclass(frozen=True)
class Hang:
    """What became of a worker whose model hung, of the jobs that it had in hand, and of those behind them."""

    exit_code: int
    noticed_s: float
    hung: tuple[JobStatus, str | None]
    others: list[JobStatus]
    recovered_s: float
    books: Books
    balanced_books: Books


@pytest.fixture(scope="module")
def hang(open_stage: OpenStage) -> Iterator[Hang]:
    with open_stage("hang") as stage:
        first, second = (stage.start_worker(JOB_TIMEOUT_SECONDS=str(LIMIT_S), MAX_BATCH_SIZE="1") for _ in range(2))
        first.begin().report("classify")
        [hung] = stage.submit([marked(Marker.HANGS_IN_CLASSIFY)])
        others = stage.submit(unique(image) for image in small_images())
        assert first.wait_for_report() == 1
        hung_s = time.monotonic()
        exit_code = first.wait()
        ended_s = time.monotonic()
        second.begin()
        records = stage.wait_for_end([hung, *others])
        recovered_s = time.monotonic()
        yield Hang(
            exit_code=exit_code,
            noticed_s=ended_s - hung_s,
            hung=(records[hung].status, (error := records[hung].error) and error.code),
            others=[records[job_id].status for job_id in others],
            recovered_s=recovered_s - ended_s,
            books=settled_books(stage.redis, records, frozenset({second.name})),
            balanced_books=Books.balanced(records, frozenset({second.name})),
        )


def test_process_ends_itself_soon_after_the_limit(hang: Hang) -> None:
    assert (hang.exit_code, hang.noticed_s < NOTICED_S) == (EXIT_STUCK, True), hang.noticed_s


def test_job_that_hung_alone_fails_at_once(hang: Hang) -> None:
    assert hang.hung == (JobStatus.FAILED, "job_timeout")


def test_other_jobs_go_on_elsewhere(hang: Hang) -> None:
    assert (set(hang.others), hang.recovered_s < RECOVERY_S) == ({JobStatus.COMPLETED}, True), hang.recovered_s


def test_books_balance_after_a_hang(hang: Hang) -> None:
    assert hang.books == hang.balanced_books


def test_stopped_process_does_not_wait_for_a_hung_decoder(open_stage: OpenStage) -> None:
    with open_stage("hung-decoder") as stage:
        worker = stage.start_worker(JOB_TIMEOUT_SECONDS="20").begin()
        worker.report("decode")
        [job_id] = stage.submit([marked(Marker.HANGS_IN_DECODE)])
        assert worker.wait_for_report() == 1

        worker.signal(signal.SIGTERM)

        assert worker.wait(timeout_s=25) in (0, EXIT_STUCK)
        wait_until(lambda: stage.statuses([job_id]) != ["PROCESSING"], "the job is somebody else's again", RECOVERY_S)
