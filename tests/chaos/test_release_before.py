"""The release before and today's on both sides of Redis: no job and no webhook is lost, and the answers are today's.

Both releases serve today's checkpoint, so that their answers can be compared.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image
from redis import Redis

from chaos.redis_state import RedisState
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from support.api_processes import DELIVERER, WORKER, one_api, run_service
from support.images import damaged_image, unique
from support.receivers import SECRET, LoopbackReceiver, run_receiver
from support.redis_server import run_redis
from support.release_before import unpack_release_before
from support.samples import CHELSEA, base64_body, encode
from support.waiting import wait_until

TODAY: dict[str, str] = {}
FINAL = ("COMPLETED", "FAILED", "CANCELLED")
PAUSE_S = 0.1
"""Between two images of a client: a worker on a busy machine keeps up."""

STEP_JOBS = 10
"""How many images are accepted in each state of an upgrade."""


@dataclass(frozen=True)
class Site:
    """A Redis, a receiver of webhooks, and a folder for the services' logs."""

    redis_url: str
    receiver: LoopbackReceiver
    directory: Path

    def run(self, service: str, release: dict[str, str]) -> AbstractContextManager[Any]:
        """Run the API, the deliverer or the worker of a release; the first gives its URL."""
        variables = {
            "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "INFO",
            "RATE_LIMIT_MAX_REQUESTS": "1000000",
            "WEBHOOK_SECRET": str(SECRET),
            **release,
        }
        log = self.directory / f"{service}-{uuid4()}.log"
        if service == "API":
            return one_api(self.redis_url, log, **variables)
        return run_service(WORKER if service == "worker" else DELIVERER, self.redis_url, log, **variables)

    def check_logs(self) -> None:
        lines = [line for log in self.directory.glob("*.log") for line in log.read_text().splitlines()]
        assert {json.loads(line)["level"] for line in lines if line.startswith("{")} <= {"info", "warning"}
        assert [line for line in lines if "Traceback" in line] == []


@contextmanager
def open_site(directory: Path) -> Iterator[Site]:
    with run_redis(directory) as server, run_receiver() as receiver:
        receiver.may_answer.set()
        site = Site(server.url, receiver, directory)
        yield site
        site.check_logs()
        with Redis.from_url(server.url) as redis:
            assert RedisState.read(redis, {}).everlasting == []


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables with which a service is of the release before."""
    return unpack_release_before(tmp_path_factory.mktemp("before")) | {"MODEL_ID": str(BUNDLED_FOLDER)}


def piece(number: int) -> bytes:
    """Cut a piece of a photo, each with a different answer. As a PNG, every release decodes it in full."""
    photo = Image.open(CHELSEA).convert("RGB")
    return encode(photo.crop((20 * number, 10 * number, 20 * number + 120, 10 * number + 120)))


class Jobs:
    """The jobs of one client, by what is special about each, and their answers."""

    def __init__(self, client: httpx.Client, receiver: LoopbackReceiver) -> None:
        self._client = client
        self._receiver = receiver
        self.ids: dict[str, str] = {}
        self.webhooks: set[str] = set()

    def submit(self, name: str, number: int, *, wait_s: int = 0, **options: Any) -> None:
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        answer = self._client.post("/analyze-image", json=base64_body(piece(number)) | options, headers=headers)
        self.ids[name] = answer.raise_for_status().json()["job_id"]
        if "webhook_url" in options:
            self.webhooks.add(f"msg_{self.ids[name]}")

    def submit_waiting(self) -> None:
        """Submit what waits until a worker of another release starts."""
        url = self._receiver.url
        self.submit("single", 0, webhook_url=url)
        self.submit("many labels", 1, top_k=8)
        self.submit("few labels", 2, min_confidence=0.2)
        images = [base64_body(image) for image in (piece(3), piece(4), damaged_image())]
        answer = self._client.post("/analyze-images", json={"images": images, "webhook_url": url}).raise_for_status()
        for number, job in enumerate(answer.json()["jobs"]):
            self.ids[f"batch {number}"] = job["job_id"]
            self.webhooks.add(f"msg_{job['job_id']}")
        self.submit("leader", 5)
        self.submit("follower", 5, webhook_url=url)
        self.submit("urgent follower", 5, priority="high")
        self.submit("cancelled", 6, webhook_url=url)
        self.submit("cancelled leader", 7)
        self.submit("follower of the cancelled", 7)
        for name in ("cancelled", "cancelled leader"):
            self._client.delete(f"/analysis/{self.ids[name]}").raise_for_status()

    def submit_to_worker(self) -> None:
        """Wait for the jobs before, and submit more while the worker runs."""
        self.wait()
        self.submit("cached", 0, webhook_url=self._receiver.url)
        self.submit("cached with fewer labels", 1)
        self.submit("waited for", 8, wait_s=30)
        self.submit("forgotten", 9, wait_s=30)
        self.wait()
        self._client.delete(f"/analysis/{self.ids['forgotten']}").raise_for_status()
        wait_until(lambda: self.webhooks <= {*self._receiver.received}, "all webhooks are delivered")

    def wait(self) -> None:
        for name, job_id in self.ids.items():
            wait_until(lambda job_id=job_id: self._find_status(job_id) in FINAL, name)  # type: ignore[misc]

    def _find_status(self, job_id: str) -> str:
        answer = self._client.get(f"/analysis-status/{job_id}", params={"wait": 10})
        return str(answer.raise_for_status().json()["status"])

    def answers(self) -> dict[str, tuple[object, ...]]:
        """Return each job's status, label, error and whether it came from the cache."""
        return {name: _summarize(answer) for name, answer in self._read().items()}

    def confidences(self) -> dict[str, float]:
        """Return the confidence of each label of each job."""
        found = {}
        for name, answer in self._read().items():
            for prediction in (answer.get("result") or {}).get("predictions", []):
                found[f"{name}: {prediction['label']}"] = prediction["confidence"]
        return found

    def _read(self) -> dict[str, dict[str, Any]]:
        return {name: self._client.get(f"/analysis-status/{job_id}").json() for name, job_id in self.ids.items()}


def _summarize(answer: dict[str, Any]) -> tuple[object, ...]:
    result, error = answer.get("result") or {}, answer.get("error") or {}
    return answer["status"], result.get("label"), error.get("code"), answer.get("cached")


def run_mix(site: Site, api: dict[str, str], worker: dict[str, str]) -> tuple[object, ...]:
    """Let jobs wait for a worker, start it, and submit more; return all answers."""
    with site.run("API", api) as url, httpx.Client(base_url=url, trust_env=False) as client:
        jobs = Jobs(client, site.receiver)
        jobs.submit_waiting()
        with site.run("worker", worker), site.run("deliverer", TODAY):
            jobs.submit_to_worker()
        return jobs.answers(), jobs.confidences()


@pytest.fixture(scope="module")
def todays(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    with open_site(tmp_path_factory.mktemp("today")) as site:
        return run_mix(site, TODAY, TODAY)


@pytest.mark.parametrize("older", ["API", "worker"])
def test_other_release_ends_jobs_with_todays_answers(
    tmp_path: Path, before: dict[str, str], todays: tuple[Any, Any], older: str
) -> None:
    answers, confidences = todays
    with open_site(tmp_path) as site:
        found = run_mix(site, before if older == "API" else TODAY, before if older == "worker" else TODAY)

    assert answers["single"][0] == "COMPLETED"
    assert found == (answers, pytest.approx(confidences, abs=0.001))


class Load(threading.Thread):
    """A client that submits new images with webhooks: each request goes to both `urls`, one after the other."""

    def __init__(self, url: str, webhook_url: str) -> None:
        super().__init__(daemon=True)
        self.urls = (url, url)
        self.accepted: list[tuple[str, str]] = []
        """The jobs of the two equal requests."""
        self._webhook_url = webhook_url
        self._is_over = threading.Event()

    def run(self) -> None:
        with httpx.Client(trust_env=False, params={"webhook_url": self._webhook_url}) as client:
            while not self._is_over.wait(PAUSE_S):
                headers = {"Content-Type": "image/png", "Idempotency-Key": str(uuid4())}
                image = unique(piece(0))
                first, second = (self._submit(client, url, image, headers) for url in self.urls)
                self.accepted.append((first, second))

    def _submit(self, client: httpx.Client, url: str, image: bytes, headers: dict[str, str]) -> str:
        def submit() -> httpx.Response | None:
            answer = client.post(f"{url}/analyze-image", content=image, headers=headers)
            # On a busy machine, Redis may answer too late: the same request is safe.
            is_late = answer.is_error and answer.json()["code"] in ("store_unavailable", "request_in_progress")
            return None if is_late else answer.raise_for_status()

        return str(wait_until(submit, "the image is accepted").json()["job_id"])

    def stop(self) -> None:
        self._is_over.set()
        self.join()


class Fleet:
    """One process of each service, which can be replaced by one of the other release."""

    def __init__(self, site: Site, release: dict[str, str]) -> None:
        self._site = site
        self._running = dict[str, ExitStack]()
        self.url = self._start("API", release)
        self._start("deliverer", release)
        self._start("worker", release)
        self.load = Load(self.url, site.receiver.url)

    def open(self) -> None:
        """Begin to submit images."""
        self.load.start()
        self._wait_for_work()

    def replace(self, service: str, release: dict[str, str]) -> None:
        """Replace the process as the documents say: the API without a gap, the others with one."""
        old = self._running[service]
        if service == "API":
            old_url, self.url = self.url, self._start(service, release)
            for urls in ((old_url, self.url), (self.url, old_url), (self.url, self.url)):
                self.load.urls = urls
                self._wait_for_work()
        old.close()
        if service != "API":
            self._start(service, release)
            self._wait_for_work()

    def close(self) -> None:
        self.load.stop()
        for running in self._running.values():
            running.close()

    def _start(self, service: str, release: dict[str, str]) -> str:
        self._running[service] = ExitStack()
        return str(self._running[service].enter_context(self._site.run(service, release)))

    def _wait_for_work(self) -> None:
        """Wait until more images have been accepted and more webhooks delivered."""
        accepted, delivered = len(self.load.accepted), len({*self._site.receiver.received})
        wait_until(lambda: len(self.load.accepted) > accepted + STEP_JOBS, "more images are accepted")
        wait_until(lambda: len({*self._site.receiver.received}) > delivered + STEP_JOBS, "more webhooks are delivered")


def test_rolling_upgrade_and_the_way_back_lose_nothing(tmp_path: Path, before: dict[str, str]) -> None:
    """The order is that of infra/README.md."""
    with open_site(tmp_path) as site, closing(Fleet(site, before)) as fleet:
        fleet.open()
        for service in ("worker", "deliverer", "API"):
            fleet.replace(service, TODAY)
        for service in ("API", "deliverer", "worker"):
            fleet.replace(service, before)
        fleet.load.stop()
        jobs = [first for first, _ in fleet.load.accepted]
        webhooks = {f"msg_{job_id}" for job_id in jobs}
        wait_until(lambda: webhooks <= {*site.receiver.received}, "all webhooks are delivered")
        with httpx.Client(base_url=fleet.url, trust_env=False) as client:
            answers = Counter(_summarize(client.get(f"/analysis-status/{job_id}").json()) for job_id in jobs)

    assert answers == {("COMPLETED", "cat", None, False): len(jobs)}
    assert [first == second for first, second in fleet.load.accepted] == [True] * len(jobs)
    assert {*site.receiver.received} == webhooks
