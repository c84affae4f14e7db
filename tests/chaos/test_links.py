"""Links to Redis that work in one direction only, or are slow: what was accepted ends once, as it should.

A service that is deaf sends commands to Redis, which runs them, but never gets an answer.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
import pytest

from chaos.conftest import OpenScenario
from chaos.redis_state import RedisState, retries_left
from chaos.scenario import Scenario
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.records import JobRecord
from support.api_processes import DELIVERER, one_api, run_service
from support.images import large_images, small_images, unique
from support.links import Link, open_link
from support.receivers import SECRET, run_receiver
from support.waiting import PATIENCE_S, wait_until

DELAY_S = 0.15
"""In each direction: a command and its answer take 300 ms."""

BYTES_PER_S = 20_000
DEAF_S = 1.5
LARGE_BYTES = 150_000
"""The link needs longer for it than the API waits; the file is cut short, so its job fails."""

LOST_S = keys.WORKER_TTL_S + 3
"""After this time, other workers have considered a worker dead."""

WEBHOOKS = 20


@contextmanager
def link_to(scenario: Scenario) -> Iterator[Link]:
    host, port = scenario.redis_server.address
    with open_link(lambda: asyncio.open_connection(host, port)) as link:
        yield link


def pause(seconds: float) -> None:
    until_s = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until_s, "the time is over")


def wait_for_end(scenario: Scenario, jobs: list[str]) -> dict[str, JobRecord]:
    return scenario.wait_for_end(jobs, PATIENCE_S)


@dataclass
class Client:
    """Submits each image with a key of its own, until it is accepted."""

    url: str
    jobs: dict[bytes, str] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)

    def submit(self, image: bytes) -> None:
        key = str(uuid4())
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            wait_until(lambda: self._try(client, image, key), "the image is accepted")

    def _try(self, client: httpx.Client, image: bytes, key: str) -> bool:
        headers = {"Content-Type": "image/jpeg", "Idempotency-Key": key}
        answer = client.post("/analyze-image", content=image, headers=headers)
        if answer.is_success:
            self.jobs[image] = answer.json()["job_id"]
        else:
            self.refusals[answer.json()["code"]] += 1
            time.sleep(0.1)
        return answer.is_success

    def count_jobs(self, scenario: Scenario) -> dict[bytes, int]:
        """Return how many jobs Redis has for each image."""
        found = Counter(scenario.redis.hget(job, "image_hash") for job in scenario.redis.scan_iter(keys.job("*")))
        return {image: found[image_digest(image).encode()] for image in self.jobs}


@contextmanager
def api_behind(link: Link) -> Iterator[Client]:
    # The claim of a key is kept for this time and ten seconds, if it is not known what has become of its request.
    settings = {"RATE_LIMIT_MAX_REQUESTS": "1000000", "FETCH_TIMEOUT_SECONDS": "0.5"}
    with one_api(link.url, **settings) as url:
        yield Client(url)


STEPS = {"count": b"rate_limit:", "claim": b"analysis_idempotency:", "queue": b"analysis_image:"}
"""The steps of a submission, with the key that each of them sends."""


def api_that_does_not_hear_redis_accepts_an_image_once(scenario: Scenario) -> None:
    scenario.start_worker().begin()

    with link_to(scenario) as link, api_behind(link) as client, ThreadPoolExecutor(1) as thread:
        client.submit(unique(small_images()[0]))
        for step in STEPS.values():
            before = client.refusals["store_unavailable"]
            with link.deaf(since=step):
                submission = thread.submit(client.submit, unique(small_images()[1]))
                wait_until(lambda before=before: client.refusals["store_unavailable"] > before, "the API gives up")  # type: ignore[misc]
            submission.result()
    ended = wait_for_end(scenario, [*client.jobs.values()])

    assert {record.status.value for record in ended.values()} == {"COMPLETED"}
    assert [*client.count_jobs(scenario).values()] == [1] * (1 + len(STEPS))
    assert client.refusals["store_unavailable"] >= len(STEPS)


def image_that_a_slow_link_brings_late_is_accepted_once(scenario: Scenario) -> None:
    scenario.start_worker().begin()
    large = large_images()[0][:LARGE_BYTES]

    with link_to(scenario) as link, api_behind(link) as client:
        client.submit(unique(small_images()[0]))
        link.slow_down(DELAY_S, BYTES_PER_S)
        client.submit(unique(small_images()[1]))
        client.refusals.clear()
        client.submit(large)
    ended = wait_for_end(scenario, [*client.jobs.values()])

    assert [record.status.value for record in ended.values()] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert [*client.count_jobs(scenario).values()] == [1, 1, 1]
    assert client.refusals["store_unavailable"] > 0


def worker_that_does_not_hear_redis_for_a_moment_loses_nothing(scenario: Scenario) -> None:
    jobs = scenario.submit(unique(image) for image in (*large_images(), *small_images()) * 4)

    with link_to(scenario) as link:
        worker = scenario.start_worker({"REDIS_URL": link.url}).begin()
        wait_until(lambda: "COMPLETED" in scenario.statuses(jobs), "the worker is at work")
        with link.deaf():
            pause(DEAF_S * 3)
        ended = wait_for_end(scenario, jobs)
        # An end whose answer was lost is written once, and reported once.
        wait_until(
            lambda: {line["job_id"] for line in worker.log.events("job_completed")} == {*jobs}, "the ends are reported"
        )
        assert worker.exit_code is None

    assert {record.status.value for record in ended.values()} == {"COMPLETED"}
    assert len(worker.log.events("job_completed")) == len(jobs)


def worker_that_does_not_hear_redis_for_long_changes_no_answer(scenario: Scenario) -> None:
    jobs = scenario.submit(unique(image) for image in (*large_images(), *small_images()) * 2)

    with link_to(scenario) as link:
        deaf = scenario.start_worker({"REDIS_URL": link.url}).begin()
        wait_until(lambda: "COMPLETED" in scenario.statuses(jobs), "the worker is at work")
        with link.deaf():
            other = scenario.start_worker().begin()
            pause(LOST_S)
            ended = wait_for_end(scenario, jobs)
        wait_until(lambda: deaf.log.events("store_available"), "the worker hears Redis again")
        new = wait_for_end(scenario, scenario.submit([unique(small_images()[0])]))
        other.signal(signal.SIGTERM)
        other.wait()
        last = wait_for_end(scenario, scenario.submit([unique(small_images()[0])]))

    assert {record.status.value for record in (ended | new | last).values()} == {"COMPLETED"}
    assert scenario.records(jobs) == ended
    assert deaf.exit_code is None


def worker_on_a_slow_link_completes_jobs_of_its_own(scenario: Scenario) -> None:
    with link_to(scenario) as link:
        worker = scenario.start_worker({"REDIS_URL": link.url}).begin()
        assert worker.name
        link.slow_down(DELAY_S, BYTES_PER_S)
        jobs = scenario.submit(unique(image) for image in small_images())
        attempts = retries_left(scenario.redis, jobs)
        ended = wait_for_end(scenario, jobs)
        assert worker.exit_code is None

    assert {record.status.value for record in ended.values()} == {"COMPLETED"}
    assert retries_left(scenario.redis, jobs) == attempts


def deliverer_that_does_not_hear_redis_sends_every_webhook(scenario: Scenario) -> None:
    scenario.start_worker().begin()
    settings = {"FETCH_ALLOWED_NETWORKS": "127.0.0.0/8", "WEBHOOK_SECRET": str(SECRET)}

    with (
        run_receiver() as receiver,
        link_to(scenario) as link,
        one_api(scenario.redis_server.url, RATE_LIMIT_MAX_REQUESTS="1000000", **settings) as url,
        run_service(DELIVERER, link.url, **settings),
        httpx.Client(base_url=url, trust_env=False, params={"webhook_url": receiver.url}) as client,
    ):
        receiver.may_answer.set()

        def submit() -> str:
            headers = {"Content-Type": "image/jpeg"}
            answer = client.post("/analyze-image", content=unique(small_images()[0]), headers=headers)
            return f"msg_{answer.raise_for_status().json()['job_id']}"

        webhooks = [submit()]
        wait_until(lambda: receiver.received, "the deliverer is at work")
        for since in (b"", b"analysis_deliver"):
            with link.deaf(since=since):
                webhooks += [submit() for _ in range(WEBHOOKS)]
                pause(DEAF_S)
        # What was claimed without an answer is due again when its lease has ended, after 30 s.
        now_s, _ = scenario.redis.time()
        scenario.redis.zadd(keys.DELIVERIES, dict.fromkeys((webhook[4:] for webhook in webhooks), now_s), xx=True)
        wait_until(lambda: {*receiver.received} >= {*webhooks}, "all webhooks are delivered")

    assert len(receiver.received) <= 2 * len(webhooks)


SCENES: dict[str, Callable[[Scenario], None]] = {
    scene.__name__: scene
    for scene in (
        api_that_does_not_hear_redis_accepts_an_image_once,
        image_that_a_slow_link_brings_late_is_accepted_once,
        worker_that_does_not_hear_redis_for_a_moment_loses_nothing,
        worker_that_does_not_hear_redis_for_long_changes_no_answer,
        worker_on_a_slow_link_completes_jobs_of_its_own,
        deliverer_that_does_not_hear_redis_sends_every_webhook,
    )
}


@pytest.fixture(scope="module")
def scenes(open_scenario: OpenScenario) -> Iterator[dict[str, Future[None]]]:
    """Run some scenes at the same time, because most of their time is waiting."""

    def run(name: str) -> None:
        with open_scenario("links") as scenario:
            SCENES[name](scenario)
            assert RedisState.read(scenario.redis, {}).everlasting == []

    with ThreadPoolExecutor(3) as threads:
        yield {name: threads.submit(run, name) for name in SCENES}


@pytest.mark.parametrize("name", SCENES)
def test_link(scenes: dict[str, Future[None]], name: str) -> None:
    scenes[name].result()
