"""What the watch takes for stuck: a step over its limit, a loop that no longer comes round."""

from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.in_flight import Work
from image_analysis_worker.threads.watchdog import Watchdog
from support.waiting import wait_until


def test_step_that_does_not_come_back_is_found_with_its_jobs() -> None:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64)
    watchdog, work = Watchdog(0.01), Work("a", "", record, b"image", 3, is_suspect=False)

    with watchdog.step([work]):
        stuck = wait_until(watchdog.find_stuck, "the step is stuck", 5)

    assert stuck == [work]
    assert watchdog.find_stuck() is None


def test_loop_that_does_not_come_round_is_found_until_it_does() -> None:
    watchdog = Watchdog(60, loop_limit_s=0.2)

    with watchdog.loop() as turn:
        at_first = watchdog.find_stuck()
        wait_until(lambda: watchdog.find_stuck() is not None, "the loop is stuck", 5)
        stuck = watchdog.find_stuck()
        turn()
        after_a_turn = watchdog.find_stuck()

    assert (at_first, stuck, after_a_turn) == (None, (), None)
