"""How many jobs are in flight at once, in which order they run, and which are given back."""

import time
from threading import Thread, Timer

import pytest

from image_analysis_common.job_errors import CorruptImage
from image_analysis_worker.jobs import batching
from image_analysis_worker.jobs.batching import FULL_BATCH_WAIT_S, InFlight
from support.jobs import make_job
from support.waiting import PATIENCE_S


def test_jobs_in_flight_are_bounded_until_they_end() -> None:
    in_flight, jobs = InFlight(4), [make_job(name) for name in "abcd"]

    in_flight.add(jobs)
    full = in_flight.wait_for_room(0)
    in_flight.remove(jobs[:3])

    assert (full, in_flight.wait_for_room(0)) == (0, 3)


def test_suspect_job_is_alone_in_flight() -> None:
    in_flight, suspect = InFlight(4), make_job("a", attempts_left=2)

    in_flight.add([suspect])
    with_it = in_flight.wait_for_room(0)
    in_flight.remove([suspect])

    assert (with_it, in_flight.wait_for_room(0)) == (0, 4)


def test_reservation_waits_for_the_jobs_in_flight_and_lets_no_more_in() -> None:
    in_flight, job = InFlight(4), make_job("a")

    loading = (in_flight.wait_for_room(0), in_flight.reserve())
    in_flight.add([job])
    busy = (in_flight.wait_for_room(0), in_flight.reserve())
    in_flight.remove([job])
    empty = (in_flight.wait_for_room(0), in_flight.reserve())
    in_flight.release()

    assert (loading, busy, empty) == ((4, False), (0, False), (0, True))
    assert in_flight.wait_for_room(0) == 4


def test_batch_holds_the_ready_jobs_in_order() -> None:
    in_flight, jobs = InFlight(8), [make_job(name) for name in "abc"]
    in_flight.add(jobs)
    for job in reversed(jobs):
        in_flight.mark_ready(job)

    assert [job.job_id for job in in_flight.next_batch(2, 0) or ()] == ["c", "b"]
    assert [job.job_id for job in in_flight.next_batch(2, 0) or ()] == ["a"]


def test_batch_of_one_waits_for_more_jobs_no_longer_than_its_limit() -> None:
    in_flight, job = InFlight(8), make_job("a")
    in_flight.add([job])
    in_flight.mark_ready(job)

    assert in_flight.next_batch(8, 0.05) == [job]


def test_batch_is_filled_while_more_jobs_wait_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FULL_BATCH_WAIT_S", PATIENCE_S)
    in_flight, jobs = InFlight(4), [make_job(name) for name in "abcd"]
    in_flight.add(jobs, has_more=True)
    in_flight.mark_ready(jobs[0])
    decoder = Timer(0.01, in_flight.mark_ready, [jobs[1]])

    decoder.start()
    full = in_flight.next_batch(2, 0)
    monkeypatch.undo()
    in_flight.mark_ready(jobs[2])
    started_s = time.monotonic()
    partial = in_flight.next_batch(2, 0)

    assert (full, partial) == (jobs[:2], jobs[2:3])
    assert time.monotonic() - started_s >= FULL_BATCH_WAIT_S
    decoder.join()


def test_batch_does_not_wait_if_the_queue_is_empty_or_every_job_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "FULL_BATCH_WAIT_S", PATIENCE_S)
    in_flight, jobs = InFlight(4), [make_job(name) for name in "abc"]
    started_s = time.monotonic()
    in_flight.add(jobs[:1], has_more=True)
    in_flight.mark_ready(jobs[0])
    every = in_flight.next_batch(8, 0)
    in_flight.add(jobs[1:])
    in_flight.mark_ready(jobs[1])
    first = in_flight.next_batch(8, 0)

    assert (every, first) == (jobs[:1], jobs[1:2])
    assert time.monotonic() - started_s < PATIENCE_S


def test_close_returns_the_jobs_that_are_not_in_the_model() -> None:
    in_flight, jobs = InFlight(8), [make_job(name) for name in "abcd"]
    in_flight.add(jobs)
    in_flight.mark_ready(jobs[0])
    in_flight.next_batch(8, 0)
    in_flight.mark_ready(jobs[2])

    rest = in_flight.close()

    assert [job.job_id for job in rest] == ["b", "c", "d"]
    assert in_flight.next_batch(8, 0) is None
    assert in_flight.add([make_job("e")]) is False


def test_job_that_is_given_out_twice_is_in_flight_until_its_second_copy_ends() -> None:
    in_flight, first, second = InFlight(8), make_job("a"), make_job("a")
    in_flight.add([first])
    in_flight.mark_ready(first)
    batch = in_flight.next_batch(8, 0)

    in_flight.add([second])
    in_flight.remove([first])
    in_flight.mark_ready(second)

    assert batch == [first]
    assert (in_flight.has(first), in_flight.has(second)) == (False, True)
    assert in_flight.next_batch(8, 0) == [second]


def test_close_returns_each_copy_of_a_job_that_is_not_in_the_model() -> None:
    in_flight, first, second = InFlight(8), make_job("a"), make_job("a")
    in_flight.add([first])
    in_flight.mark_ready(first)
    in_flight.next_batch(8, 0)
    in_flight.add([second])

    assert in_flight.close() == [second]


def test_close_ends_the_wait_for_a_batch() -> None:
    in_flight, batches = InFlight(8), []
    waiting = Thread(target=lambda: batches.append(in_flight.next_batch(8, 0)))
    waiting.start()

    in_flight.close()
    waiting.join(5)

    assert batches == [None]


def test_job_given_back_is_not_run_when_its_decoding_ends_late() -> None:
    in_flight, job = InFlight(8), make_job("a")
    in_flight.add([job])
    in_flight.close()

    in_flight.mark_ready(job)

    assert not in_flight.has(job)


@pytest.mark.parametrize(
    ("failure", "attempts_left", "can_be_retried"),
    [(RuntimeError(), 3, True), (RuntimeError(), 1, False), (CorruptImage("It is damaged."), 3, False)],
)
def test_only_unexpected_errors_are_retried(failure: Exception, attempts_left: int, can_be_retried: bool) -> None:
    job = make_job("a", attempts_left=attempts_left)

    job.end(failure)

    assert (job.has_ended, job.can_be_retried, job.image) == (True, can_be_retried, b"")
