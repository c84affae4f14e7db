"""The two hardest cases of a kill: there is no other worker to take over, and there is no attempt left."""

import signal
import time

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, settled_state
from image_analysis_common import keys
from support.images import large_images, small_images, unique
from support.waiting import wait_until

RECOVERY_S = 20
JOBS = 40
DOOMED = 5


def test_lone_worker_that_is_started_again_from_nothing_recovers_its_own_jobs(open_scenario: OpenScenario) -> None:
    with open_scenario("lone") as scenario:
        jobs = scenario.submit(unique(large_images()[number % 3]) for number in range(JOBS))
        worker = scenario.start_worker(is_program=True).begin()
        wait_until(lambda: {"COMPLETED", "PROCESSING"} <= {*scenario.statuses(jobs)}, "the worker is at work")

        worker.signal(signal.SIGKILL)
        worker.wait()
        program = scenario.start_program("image_analysis_worker")
        [started] = wait_until(lambda: program.log.events("worker_started"), "the new worker has started", 60)
        started_s = time.monotonic()  # how long its imports take says nothing about recovery
        records = scenario.wait_for_end(jobs)

        recovery_s = time.monotonic() - started_s
        living = frozenset({str(started["worker"])})
        assert [record.status for record in records.values()] == ["COMPLETED"] * JOBS
        assert settled_state(scenario.redis, records, living) == RedisState.clean(records, living)
        assert recovery_s < RECOVERY_S


def test_job_that_is_given_up_is_not_lost_with_the_worker_that_gives_it_up(open_scenario: OpenScenario) -> None:
    with open_scenario("doomed") as scenario, scenario.redis.pubsub(ignore_subscribe_messages=True) as steps:
        jobs = scenario.submit(unique(image) for image in small_images()[:DOOMED])
        for job_id in jobs:
            scenario.redis.hset(f"rq:job:{job_id}", "retries_left", 0)
        steps.psubscribe("__keyspace@0__:" + keys.job("*"))

        worker = scenario.start_worker().begin()
        wait_until(lambda: steps.get_message(timeout=0.1), "the worker takes a job")
        worker.signal(signal.SIGKILL)
        worker.wait()
        survivor = scenario.start_worker().begin()
        records = scenario.wait_for_end(jobs, timeout_s=2 * RECOVERY_S)

        living = frozenset({survivor.name})
        assert [record.error and record.error.code for record in records.values()] == ["worker_lost"] * DOOMED
        assert settled_state(scenario.redis, records, living) == RedisState.clean(records, living)
