"""The primary is killed under load, and Sentinel promotes a replica: what of the accepted jobs is lost, and how soon
images are analyzed again.

Just before each kill, the replicas are cut off for a moment: what the primary accepts in that moment is on no other
server. `CHAOS_FAILOVERS` is how often the primary is killed.
"""

import base64
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from redis import Redis

from addresses import Addresses
from image_analysis_common.images import image_digest
from support.api_processes import DELIVERER, WORKER, one_api, run_service
from support.images import small_images, unique
from support.reaper import Reaper
from support.receivers import SECRET
from support.replicated_redis import ReplicatedRedis, cut_off, run_replicated_redis
from support.samples import base64_body
from support.waiting import wait_until

CLIENTS = 2
PAUSE_S = 0.08
"""Between two images of a client: a worker on a busy machine keeps up."""

CUT_S = 0.3
RECOVERY_S = 45
"""Sentinel repeats an election that no sentinel has won, after 10 s each time."""

ENDED_S = 60
READY_S = 120

ACCEPTED = (httpx.codes.OK, httpx.codes.ACCEPTED)


@dataclass
class Load:
    """Clients that submit new images without a pause, and repeat each request with its key until it is accepted."""

    url: str
    accepted: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    _is_stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=10) as client:
            while not self._is_stopped.wait(PAUSE_S):
                self._submit(client, unique(small_images()[0]))

    def _submit(self, client: httpx.Client, image: bytes) -> None:
        headers = {"Content-Type": "image/jpeg", "Idempotency-Key": str(uuid4())}
        while not self._is_stopped.is_set():
            answer = client.post("/analyze-image", content=image, headers=headers)
            if answer.status_code in ACCEPTED:
                self.accepted.append(answer.json()["job_id"])
                return
            self.refusals[answer.json()["code"]] += 1
            self._is_stopped.wait(0.1)


@dataclass
class Failovers:
    """What was observed over all kills."""

    kills: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    """The time from each kill to the first result of a job that was submitted after it."""
    accepted: int = 0
    lost: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of the primary, {self.accepted} jobs accepted, {self.lost} lost, slowest recovery "
            f"{max(self.recoveries_s):.1f} s, statuses {dict(self.statuses)}, refusals {dict(self.refusals)}"
        )


def kill_primary(redis: ReplicatedRedis, client: httpx.Client, accepted: list[str], cut_jobs: int) -> float:
    """Cut the replicas off, kill the primary, and start it again as it was; return the time to recover, in seconds.

    The cut lasts until `cut_jobs` more jobs are accepted.
    """
    redis.wait_until_settled()
    primary, replicas = redis.find_primary(), redis.find_replicas()
    cut_s = time.monotonic()
    with ExitStack() as pauses:
        for replica in replicas:
            pauses.enter_context(replica.paused())
        cut_off(primary)
        enough = len(accepted) + cut_jobs
        wait_until(lambda: time.monotonic() > cut_s + CUT_S and len(accepted) >= enough, "the cut is over")
        primary.kill()
    killed_s = time.monotonic()
    wait_until(lambda: is_analyzed(client), "an image is analyzed again")
    recovered_s = time.monotonic()
    primary.start()
    return recovered_s - killed_s


def is_analyzed(client: httpx.Client) -> bool:
    headers = {"Content-Type": "image/jpeg", "Prefer": "wait=2"}
    answer = client.post(
        "/analyze-image", content=unique(small_images()[0]), headers=headers, params={"priority": "high"}
    )
    return answer.status_code == httpx.codes.OK and answer.json()["status"] == "COMPLETED"


def find_statuses(client: httpx.Client, jobs: list[str]) -> dict[str, str]:
    """Ask for each job until all have ended; LOST is the status of a job that the service does not know."""
    statuses: dict[str, str] = {}

    def have_ended() -> bool:
        for job_id in jobs:
            if statuses.get(job_id) not in ("COMPLETED", "FAILED", "LOST"):
                answer = client.get(f"/analysis-status/{job_id}")
                statuses[job_id] = "LOST" if answer.status_code == httpx.codes.NOT_FOUND else answer.json()["status"]
        return set(statuses.values()) <= {"COMPLETED", "FAILED", "LOST"}

    with suppress(AssertionError):  # the test's own assertion shows what is missing
        wait_until(have_ended, "all jobs end", ENDED_S)
    return statuses


@dataclass(frozen=True)
class Scene:
    redis: ReplicatedRedis
    directory: Path

    def fail_over(self, kills: int, *, min_replicas: int) -> Failovers:
        """Kill the primary so often, under load on an API process with this `MIN_REPLICAS_ACK`."""
        seen = Failovers()
        settings = {"RATE_LIMIT_MAX_REQUESTS": "1000000", "MIN_REPLICAS_ACK": str(min_replicas)}
        with ExitStack() as exits:
            log = self.directory / f"api-{min_replicas}.log"
            url = exits.enter_context(one_api("", log, **self.redis.variables, **settings))
            client = exits.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=10))
            wait_until(lambda: is_analyzed(client), "an image is analyzed", READY_S)
            load = Load(url)
            exits.callback(load.stop)
            load.start()
            for _ in range(kills):
                # Each client may get the answer to a request from before the cut.
                cut_jobs = 0 if min_replicas else 2 * CLIENTS
                seen.recoveries_s.append(kill_primary(self.redis, client, load.accepted, cut_jobs))
                seen.kills += 1
            load.stop()
            statuses = find_statuses(client, load.accepted)
        seen.accepted, seen.refusals, seen.statuses = len(statuses), load.refusals, Counter(statuses.values())
        seen.lost = seen.statuses["LOST"]
        return seen


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, reaper: Reaper) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("failover")
    with (
        run_replicated_redis(directory, reaper) as redis,
        run_service(WORKER, "", directory / "worker.log", **redis.variables, LOG_FORMAT="json"),
    ):
        yield Scene(redis, directory)


@pytest.fixture(scope="module")
def strict(scene: Scene) -> Iterator[httpx.Client]:
    """A client of an API process with `MIN_REPLICAS_ACK=1`."""
    settings = {"RATE_LIMIT_MAX_REQUESTS": "1000000", "MIN_REPLICAS_ACK": "1"}
    with (
        one_api("", scene.directory / "api.log", **scene.redis.variables, **settings) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=10) as client,
    ):
        wait_until(lambda: is_analyzed(client), "an image is analyzed", READY_S)
        yield client


@pytest.fixture(scope="module")
def failovers() -> int:
    return int(os.environ.get("CHAOS_FAILOVERS") or 2)


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
def test_job_that_no_replica_has_is_refused_and_the_same_request_is_safe(
    scene: Scene, strict: httpx.Client, path: str
) -> None:
    scene.redis.wait_until_settled()
    image, headers = base64_body(unique(small_images()[1])), {"Idempotency-Key": str(uuid4())}
    body = image if path == "/analyze-image" else {"images": [image]}

    with ExitStack() as pauses:
        for replica in scene.redis.find_replicas():
            pauses.enter_context(replica.paused())
        refusals = [strict.post(path, json=body, headers=headers) for _ in range(2)]
    accepted = [strict.post(path, json=body, headers=headers) for _ in range(2)]

    assert [(answer.status_code, answer.json()["code"]) for answer in refusals] == [(503, "store_unavailable")] * 2
    assert {answer.status_code for answer in accepted} <= {*ACCEPTED}
    key = "job_id" if path == "/analyze-image" else "batch_id"
    assert accepted[0].json()[key] == accepted[1].json()[key]
    with Redis.from_url(scene.redis.find_primary().url) as redis:
        [record] = [job for job in redis.scan_iter("analysis_job:*") if is_of(redis, job, image)]
    assert record.decode().removeprefix("analysis_job:") in accepted[0].text


def is_of(redis: Redis, record: bytes, image: dict[str, str]) -> bool:
    return redis.hget(record, "image_hash") == image_digest(base64.b64decode(image["image_data"])).encode()


def test_every_service_finds_the_primary(scene: Scene, strict: httpx.Client) -> None:
    variables = scene.redis.variables | {"LOG_FORMAT": "json"}
    port = Addresses.choose({}, free_ports=True).dashboard_port
    dashboard = {"RQ_DASHBOARD_REDIS_URL": variables["REDIS_URL"], "RQ_DASHBOARD_PORT": str(port)}
    page = f"http://127.0.0.1:{port}/0/data/queues.json"

    with (
        run_service(DELIVERER, "", scene.directory / "deliverer.log", **variables, WEBHOOK_SECRET=str(SECRET)),
        run_service([sys.executable, "infra/dashboard/serve.py", "--json"], "", None, **variables, **dashboard),
    ):
        for module in ("image_analysis_api.deliverer", "image_analysis_worker"):
            check = [sys.executable, "-m", f"{module}.healthcheck"]
            wait_until(lambda check=check: is_healthy(check, variables), f"{module} is healthy")  # type: ignore[misc]
        wait_until(lambda: b"analysis-vit-tiny-cifar10" in fetch(page), "the dashboard shows the queue")
    assert strict.get("/health/ready").json()["status"] == "ready"


def is_healthy(check: list[str], variables: dict[str, str]) -> bool:
    return subprocess.run(check, env=os.environ | variables, capture_output=True, check=False).returncode == 0


def fetch(url: str) -> bytes:
    try:
        return httpx.get(url, trust_env=False).content
    except httpx.TransportError:
        return b""


def test_primary_that_only_the_services_still_reach_is_left(scene: Scene, strict: httpx.Client) -> None:
    scene.redis.wait_until_settled()
    old = scene.redis.find_primary()
    strict.get("/health/ready")  # its connection to the old primary stays open

    with scene.redis.isolated(old):
        began_s = time.monotonic()
        wait_until(lambda: is_analyzed(strict), "an image is analyzed")
        took_s = time.monotonic() - began_s
        # A sentinel that did not lead the failover hears of it a moment later.
        wait_until(lambda: scene.redis.find_primary() is not old, "another server is the primary")
    assert took_s < RECOVERY_S


def test_failover_loses_no_job_that_a_replica_has(scene: Scene, failovers: int, say: Callable[[str], None]) -> None:
    seen = scene.fail_over(failovers, min_replicas=1)
    say(f"MIN_REPLICAS_ACK=1: {seen}")

    assert (seen.kills, seen.lost) == (failovers, 0)
    assert seen.statuses == {"COMPLETED": seen.accepted}
    assert max(seen.recoveries_s) < RECOVERY_S
    assert seen.refusals.keys() <= {"store_unavailable", "request_in_progress"}


def test_failover_without_acknowledgments_loses_what_no_replica_had(
    scene: Scene, failovers: int, say: Callable[[str], None]
) -> None:
    seen = scene.fail_over(failovers // 2, min_replicas=0)
    say(f"MIN_REPLICAS_ACK=0: {seen}")

    assert seen.lost > 0, "the cut lost nothing, so the other test shows nothing"
    assert seen.statuses == {"COMPLETED": seen.accepted - seen.lost, "LOST": seen.lost}
