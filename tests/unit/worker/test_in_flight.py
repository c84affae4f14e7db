"""What a worker holds at once, in which order it comes out, and what it gives back."""

from threading import Thread

import pytest

from image_analysis_common.job_errors import CorruptImage
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.in_flight import Hand, Work


def make_work(job_id: str, *, attempts_left: int = 3) -> Work:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64)
    return Work(job_id, "", record, b"image", attempts_left, is_suspect=attempts_left < 3)


def test_hand_is_bounded_until_jobs_end() -> None:
    hand, works = Hand(4), [make_work(name) for name in "abcd"]

    hand.hold(works)
    full = hand.wait_for_room(0)
    hand.let_go(works[:3])

    assert (full, hand.wait_for_room(0)) == (0, 3)


def test_suspect_has_the_hand_to_itself() -> None:
    hand, suspect = Hand(4), make_work("a", attempts_left=2)

    hand.hold([suspect])
    beside_it = hand.wait_for_room(0)
    hand.let_go([suspect])

    assert (beside_it, hand.wait_for_room(0)) == (0, 4)


def test_batch_is_what_is_ready_in_its_order() -> None:
    hand, works = Hand(8), [make_work(name) for name in "abc"]
    hand.hold(works)
    for work in reversed(works):
        hand.offer(work)

    assert [work.job_id for work in hand.next_batch(2, 0) or ()] == ["c", "b"]
    assert [work.job_id for work in hand.next_batch(2, 0) or ()] == ["a"]


def test_lone_job_waits_for_company_no_longer_than_told() -> None:
    hand, work = Hand(8), make_work("a")
    hand.hold([work])
    hand.offer(work)

    assert hand.next_batch(8, 0.05) == [work]


def test_closed_hand_returns_what_is_not_in_the_model() -> None:
    hand, works = Hand(8), [make_work(name) for name in "abcd"]
    hand.hold(works)
    hand.offer(works[0])
    hand.next_batch(8, 0)
    hand.offer(works[2])

    rest = hand.close()

    assert [work.job_id for work in rest] == ["b", "c", "d"]
    assert hand.next_batch(8, 0) is None
    assert hand.hold([make_work("e")]) is False


def test_closing_wakes_whoever_waits_for_a_batch() -> None:
    hand, batches = Hand(8), []
    waiting = Thread(target=lambda: batches.append(hand.next_batch(8, 0)))
    waiting.start()

    hand.close()
    waiting.join(5)

    assert batches == [None]


def test_job_given_back_is_not_run_when_its_decoding_ends_late() -> None:
    hand, work = Hand(8), make_work("a")
    hand.hold([work])
    hand.close()

    hand.offer(work)

    assert not hand.holds(work)


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
