"""What counts as stuck: a step over its limit, and a loop that makes no progress."""

from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.threads.watchdog import Watchdog
from support.waiting import wait_until


def test_step_over_its_limit_is_found_with_its_jobs() -> None:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64)
    watchdog, job = Watchdog(0.01), Job("a", "", record, b"image", 3, is_suspect=False)

    with watchdog.step([job]):
        stuck = wait_until(watchdog.find_stuck, "the step is stuck", 5)

    assert stuck == [job]
    assert watchdog.find_stuck() is None


def test_loop_over_its_limit_is_found_until_it_is_reset() -> None:
    watchdog = Watchdog(60, loop_limit_s=0.2)

    with watchdog.loop() as reset:
        at_first = watchdog.find_stuck()
        wait_until(lambda: watchdog.find_stuck() is not None, "the loop is stuck", 5)
        stuck = watchdog.find_stuck()
        reset()
        after_reset = watchdog.find_stuck()

    assert (at_first, stuck, after_reset) == (None, (), None)
