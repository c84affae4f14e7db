"""The same image is submitted many times while it is in flight: it runs once, and every job is answered."""

import asyncio
import base64
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from addresses import LOOPBACK, Addresses
from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, settled_state
from chaos.scenario import Scenario
from chaos.workers import Worker
from support.images import Marker, damaged_image, marked, small_images, unique
from support.waiting import wait_until

SUBMISSIONS = 50
ROUNDS = 8
RECOVERY_S = 20

Answer = dict[str, Any]


class Clients:
    """Many clients of two API processes."""

    def __init__(self, scenario: Scenario) -> None:
        self.urls = [self._start_api(scenario) for _ in range(2)]
        for url in self.urls:
            wait_until(partial(self._is_up, url), "the API answers", 60)

    def submit(self, image: bytes, count: int) -> list[Answer]:
        """Send an image many times at once, through both processes."""
        body = {"image_data": base64.b64encode(image).decode()}

        async def submit() -> list[Answer]:
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                posts = (client.post(f"{self.urls[n % 2]}/analyze-image", json=body) for n in range(count))
                return [post.raise_for_status().json() for post in await asyncio.gather(*posts)]

        return asyncio.run(submit())

    def answers(self, jobs: list[str]) -> list[Answer]:
        """Return the status of each job, without its ID."""
        with httpx.Client(trust_env=False, timeout=30) as client:
            bodies = [client.get(f"{self.urls[n % 2]}/analysis-status/{job}").json() for n, job in enumerate(jobs)]
        return [{name: value for name, value in body.items() if name != "job_id"} for body in bodies]

    def wait_for_answers(self, jobs: list[str], timeout_s: float = 30) -> list[Answer]:
        """Wait until all have ended; return their last statuses."""
        latest: list[Answer] = []

        def have_ended() -> bool:
            latest[:] = self.answers(jobs)
            return all(answer["status"] in ("COMPLETED", "FAILED") for answer in latest)

        try:
            wait_until(have_ended, "all jobs end", timeout_s)
        except AssertionError:
            return latest  # the test's own assertion says more
        return latest

    def _start_api(self, scenario: Scenario) -> str:
        port = str(Addresses.choose({}, free_ports=True).api_port)
        limits = {"RATE_LIMIT_MAX_REQUESTS": "10000"}
        scenario.start_program("image_analysis_api", API_PORT=port, API_HOST=LOOPBACK, **limits)
        return f"http://{LOOPBACK}:{port}"

    def _is_up(self, url: str) -> bool:
        try:
            return httpx.get(f"{url}/health", trust_env=False).is_success
        except httpx.TransportError:
            return False


Scene = tuple[Scenario, Clients]


@pytest.fixture(scope="module")
def world(open_scenario: OpenScenario) -> Iterator[Scene]:
    with open_scenario("identical") as scenario:
        yield scenario, Clients(scenario)


@pytest.fixture
def scene(world: Scene) -> Iterator[Scene]:
    scenario, _ = world
    scenario.redis.flushall()
    yield world
    scenario.close_workers()


def identifiers(answers: list[Answer]) -> list[str]:
    jobs = [answer["job_id"] for answer in answers]
    assert len(set(jobs)) == len(jobs)
    return jobs


def count_runs(*workers: Worker) -> int:
    """Count the images that went through a model."""
    return sum(int(line["images"]) for worker in workers for line in worker.log.events("model_entered"))


def check_registries(scenario: Scenario, jobs: list[str], *living: Worker) -> None:
    """Compare RQ's registries with the records of the jobs that RQ knows: followers have no RQ job."""
    known = [job_id for job_id in jobs if scenario.redis.exists(f"rq:job:{job_id}")]
    records, names = scenario.records(known), frozenset(worker.name for worker in living)
    assert settled_state(scenario.redis, records, names) == RedisState.clean(records, names)


def test_fifty_that_wait_together_share_one_run(scene: Scene) -> None:
    scenario, clients = scene
    worker = scenario.start_worker()

    accepted = clients.submit(unique(small_images()[0]), SUBMISSIONS)
    worker.begin()
    answers = clients.wait_for_answers(jobs := identifiers(accepted))

    assert {answer["status"] for answer in accepted} == {"PENDING"}
    assert answers == [answers[0] | {"status": "COMPLETED"}] * SUBMISSIONS
    assert count_runs(worker) == 1
    check_registries(scenario, jobs, worker)


def test_those_that_come_while_it_runs_share_that_run(scene: Scene) -> None:
    scenario, clients = scene
    worker = scenario.start_worker().begin()
    assert worker.name

    # The run ends during the submissions; over all rounds, at many different moments.
    rounds = [clients.submit(unique(image), SUBMISSIONS) for image in small_images()[:ROUNDS]]
    jobs = [identifiers(accepted) for accepted in rounds]
    answers = [clients.wait_for_answers(some) for some in jobs]

    for some in answers:
        assert [(x["status"], x["result"]) for x in some] == [("COMPLETED", some[0]["result"])] * SUBMISSIONS
    assert count_runs(worker) == ROUNDS
    check_registries(scenario, [job_id for some in jobs for job_id in some], worker)


def test_followers_of_a_job_that_fails_get_its_failure(scene: Scene) -> None:
    scenario, clients = scene
    worker = scenario.start_worker()

    accepted = clients.submit(damaged_image(), 10)
    worker.begin()
    answers = clients.wait_for_answers(jobs := identifiers(accepted))

    assert [(answer["status"], answer["error"]["code"]) for answer in answers] == [("FAILED", "corrupt_image")] * 10
    check_registries(scenario, jobs, worker)


def test_image_that_failed_runs_again_when_it_is_resubmitted(scene: Scene) -> None:
    scenario, clients = scene
    scenario.start_worker().begin()

    answers = [clients.wait_for_answers(identifiers(clients.submit(damaged_image(), 1))) for _ in range(2)]

    assert [[answer["status"] for answer in pair] for pair in answers] == [["FAILED"], ["FAILED"]]
    assert scenario.redis.zcard("rq:failed:analysis-vit-tiny-cifar10") == 2


def test_followers_of_a_killed_worker_get_the_next_ones_result(scene: Scene) -> None:
    scenario, clients = scene
    first, second = scenario.start_worker({"SLOW_S": "2"}).begin(), scenario.start_worker({"SLOW_S": "0"})
    first.report("classify")

    accepted = clients.submit(image := marked(Marker.IS_SLOW), 10)
    assert first.wait_for_report()
    first.signal(signal.SIGKILL)
    killed_s = time.monotonic()
    first.wait()
    second.begin()
    late = clients.submit(image, 1)
    answers = clients.wait_for_answers(jobs := identifiers([*accepted, *late]))
    recovery_s = time.monotonic() - killed_s

    assert answers == [answers[0] | {"status": "COMPLETED"}] * 11
    assert recovery_s < RECOVERY_S
    check_registries(scenario, jobs, second)
