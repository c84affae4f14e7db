"""Workers are killed at any moment, many times, under load: every job ends, always with the same answer."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaos.conftest import OpenScenario
from chaos.kill_log import KillLog, Recoveries
from chaos.killer import Feeder, Killer
from chaos.redis_state import RedisState, settled_state
from chaos.scenario import Scenario
from chaos.statuses import StatusPoller
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.tasks import MAX_ATTEMPTS
from support.images import large_images, small_images, unique

RECOVERY_S = 20
CONFIDENCE_TOLERANCE = 0.002
"""Largest difference of a confidence from the undisturbed run: the order of summation depends on the batch."""

Answer = tuple[str, float]


@dataclass(frozen=True)
class Aftermath:
    """Everything that was observed when the last job has ended."""

    records: dict[str, JobRecord]
    expected: dict[str, Answer]
    kill_log: KillLog
    poller: StatusPoller
    recoveries: Recoveries
    state: RedisState
    clean_state: RedisState
    exit_codes: list[int]


def answer(record: JobRecord) -> Answer:
    assert record.result is not None, record
    return record.result.label, record.result.confidence


def undisturbed_answers(scenario: Scenario) -> dict[bytes, Answer]:
    """Run each image once without kills; all answers must differ, or a mix-up would not be noticed."""
    worker = scenario.start_worker().begin()
    images = [*small_images(), *large_images()]
    jobs = scenario.submit(unique(image) for image in images)
    records = scenario.wait_for_end(jobs)
    worker.close()
    answers = [answer(records[job_id]) for job_id in jobs]
    assert len({(label, round(confidence, 2)) for label, confidence in answers}) > len(answers) // 2, answers
    scenario.redis.flushall()
    return dict(zip(images, answers, strict=True))


@pytest.fixture(scope="module")
def aftermath(open_scenario: OpenScenario, kills: int, seed: int, say: Callable[[str], None]) -> Iterator[Aftermath]:
    chance = random.Random(seed)
    with open_scenario("kills") as scenario:
        answers = undisturbed_answers(scenario)
        crew = scenario.start_crew()
        poller = StatusPoller(scenario.redis_server.url)
        feeder = Feeder(scenario, poller, chance)
        kill_log = KillLog(scenario.redis)
        killer = Killer(scenario, crew, feeder, poller, kill_log, chance)
        poller.start()
        feeder.start()
        for aim in killer.plan(kills):
            killer.kill(aim)
        feeder.stop()
        records = scenario.wait_for_end(list(feeder.images), timeout_s=60, crew=crew)
        poller.stop()
        recoveries = kill_log.recoveries(poller.ended_s)
        say(f"{len(records)} jobs, {poller.samples} statuses sampled; {recoveries.summary()}")
        if path := os.environ.get("CHAOS_REPORT"):
            Path(path).write_text(json.dumps(recoveries.report(seed), indent=2) + "\n")
        living = frozenset(worker.name for worker in crew.working)
        yield Aftermath(
            records=records,
            expected={job_id: answers[image] for job_id, image in feeder.images.items()},
            kill_log=kill_log,
            poller=poller,
            recoveries=recoveries,
            state=settled_state(scenario.redis, records, living),
            clean_state=RedisState.clean(records, living),
            exit_codes=crew.dismiss(),
        )


def test_every_job_ends(aftermath: Aftermath) -> None:
    ends = Counter(record.status for record in aftermath.records.values())

    assert ends.keys() <= {JobStatus.COMPLETED, JobStatus.FAILED}


def test_no_answer_differs_from_the_undisturbed_run(aftermath: Aftermath) -> None:
    completed = {job: answer(record) for job, record in aftermath.records.items() if record.result is not None}

    wrong = {
        job: (found, expected)
        for job, found in completed.items()
        if found[0] != (expected := aftermath.expected[job])[0]
        or found[1] != pytest.approx(expected[1], abs=CONFIDENCE_TOLERANCE)
    }

    assert wrong == {}


def test_only_a_job_whose_workers_were_all_killed_fails(aftermath: Aftermath) -> None:
    errors = {job: record.error for job, record in aftermath.records.items() if record.status is JobStatus.FAILED}

    wrong = {
        job: (error, aftermath.kill_log.hits(job))
        for job, error in errors.items()
        if error is None or error.code != "worker_lost" or len(aftermath.kill_log.hits(job)) < MAX_ATTEMPTS
    }

    assert wrong == {}


def test_kills_hit_jobs_in_hand(aftermath: Aftermath, kills: int) -> None:
    assert len(aftermath.recoveries.kills) == kills
    assert len(aftermath.recoveries.times_s) > kills // 2


def test_slowest_recovery_is_in_time(aftermath: Aftermath) -> None:
    late = [kill for kill in aftermath.recoveries.kills if kill[2] is not None and kill[2] > RECOVERY_S]

    assert late == []


def test_no_status_goes_back_but_to_pending_for_a_retry(aftermath: Aftermath) -> None:
    assert aftermath.poller.wrong_steps() == {}


def test_every_job_is_in_one_place_at_any_time(aftermath: Aftermath) -> None:
    assert aftermath.poller.misplaced == {}


def test_no_finished_answer_changes(aftermath: Aftermath) -> None:
    assert aftermath.poller.changed_answers == []


def test_redis_is_clean_and_forget_the_dead(aftermath: Aftermath) -> None:
    assert aftermath.state == aftermath.clean_state


def test_workers_of_the_end_stop_in_order(aftermath: Aftermath) -> None:
    assert aftermath.exit_codes == [0, 0]
