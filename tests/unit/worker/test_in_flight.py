"""What a worker holds at once, in which order it comes out, and what it gives back."""

from threading import Thread

import pytest

from image_analysis_common.job_errors import CorruptImage
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.in_flight import InFlight, Work


def make_work(job_id: str, *, attempts_left: int = 3) -> Work:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64)
    return Work(job_id, "", record, b"image", attempts_left, is_suspect=attempts_left < 3)


def test_hand_is_bounded_until_jobs_end() -> None:
    in_flight, works = InFlight(4), [make_work(name) for name in "abcd"]

    in_flight.hold(works)
    full = in_flight.wait_for_room(0)
    in_flight.let_go(works[:3])

    assert (full, in_flight.wait_for_room(0)) == (0, 3)


def test_suspect_has_the_hand_to_itself() -> None:
    in_flight, suspect = InFlight(4), make_work("a", attempts_left=2)

    in_flight.hold([suspect])
    beside_it = in_flight.wait_for_room(0)
    in_flight.let_go([suspect])

    assert (beside_it, in_flight.wait_for_room(0)) == (0, 4)


def test_batch_is_what_is_ready_in_its_order() -> None:
    in_flight, works = InFlight(8), [make_work(name) for name in "abc"]
    in_flight.hold(works)
    for work in reversed(works):
        in_flight.offer(work)

    assert [work.job_id for work in in_flight.next_batch(2, 0) or ()] == ["c", "b"]
    assert [work.job_id for work in in_flight.next_batch(2, 0) or ()] == ["a"]


def test_lone_job_waits_for_company_no_longer_than_told() -> None:
    in_flight, work = InFlight(8), make_work("a")
    in_flight.hold([work])
    in_flight.offer(work)

    assert in_flight.next_batch(8, 0.05) == [work]


def test_closed_hand_returns_what_is_not_in_the_model() -> None:
    in_flight, works = InFlight(8), [make_work(name) for name in "abcd"]
    in_flight.hold(works)
    in_flight.offer(works[0])
    in_flight.next_batch(8, 0)
    in_flight.offer(works[2])

    rest = in_flight.close()

    assert [work.job_id for work in rest] == ["b", "c", "d"]
    assert in_flight.next_batch(8, 0) is None
    assert in_flight.hold([make_work("e")]) is False


def test_closing_wakes_whoever_waits_for_a_batch() -> None:
    in_flight, batches = InFlight(8), []
    waiting = Thread(target=lambda: batches.append(in_flight.next_batch(8, 0)))
    waiting.start()

    in_flight.close()
    waiting.join(5)

    assert batches == [None]


def test_job_given_back_is_not_run_when_its_decoding_ends_late() -> None:
    in_flight, work = InFlight(8), make_work("a")
    in_flight.hold([work])
    in_flight.close()

    in_flight.offer(work)

    assert not in_flight.holds(work)


@pytest.mark.parametrize(
    ("failure", "attempts_left", "can_be_retried"),
    [(RuntimeError(), 3, True), (RuntimeError(), 1, False), (CorruptImage("It is damaged."), 3, False)],
)
def test_only_what_may_end_otherwise_is_tried_again(
    failure: Exception, attempts_left: int, can_be_retried: bool
) -> None:
    work = make_work("a", attempts_left=attempts_left)

    work.end(failure)

    assert (work.has_ended, work.can_be_retried, work.image) == (True, can_be_retried, b"")
