"""What counts as stuck: a step over its limit, and a loop that makes no progress."""

from image_analysis_worker.threads.watchdog import Watchdog
from support.jobs import make_job
from support.waiting import wait_until


def test_step_over_its_limit_is_found_with_its_jobs() -> None:
    watchdog, job = Watchdog(0.01), make_job()

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
