"""The Python client against the running stack: every source, every call, and what comes in between."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from redis import Redis

from image_analysis_client import AsyncClient, Client, JobCancelled, JobStatus, NotFound, Outcome, Source, WaitTimeout
from image_analysis_common import keys
from stack import Stack
from support.api_processes import one_api
from support.cutting import Cut, cutting_proxy
from support.samples import CHELSEA, make_jpeg
from support.waiting import wait_until

SOURCES = ["path", "name", "bytes", "file", "open file", "PIL", "url"]
IMAGES = 150
seeds = count(20_000)


@pytest.fixture
def classifier(stack: Stack, client: httpx.Client) -> Iterator[Client]:
    """A client of the stack, which knows no result of the tests before."""
    stack.wait_until_ready()
    with Client(stack.api_url) as classifier:
        yield classifier


@pytest.fixture
def sources(httpserver: HTTPServer) -> dict[str, Callable[[], Source]]:
    httpserver.expect_request("/chelsea.png").respond_with_data(CHELSEA.read_bytes(), content_type="image/png")
    return {
        "path": lambda: CHELSEA,
        "name": lambda: str(CHELSEA),
        "bytes": CHELSEA.read_bytes,
        "file": lambda: BytesIO(CHELSEA.read_bytes()),
        "open file": lambda: CHELSEA.open("rb"),
        "PIL": lambda: Image.open(CHELSEA),
        "url": lambda: httpserver.url_for("/chelsea.png"),
    }


def photos(number: int) -> list[bytes]:
    """Make images that no other test has."""
    return [make_jpeg(seed, size_px=(80 + seed % 61, 60 + seed % 53)) for seed in islice(seeds, number)]


def count_jobs(stack: Stack) -> int:
    with Redis.from_url(stack.redis_url) as redis:
        return sum(1 for _ in redis.scan_iter(keys.job("*"), count=1000))


def check_complete(outcomes: list[Outcome], images: list[bytes]) -> None:
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert sorted(map(id, images)) == sorted(id(outcome.source) for outcome in outcomes)
    assert len({outcome.job_id for outcome in outcomes}) == len(images)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_classified(classifier: Client, sources: dict[str, Callable[[], Source]], kind: str) -> None:
    source = sources[kind]()
    try:
        result = classifier.classify(source, top_k=3)
    finally:
        if kind in ("open file", "PIL"):
            source.close()  # type: ignore[union-attr]

    assert (result.label, len(result.predictions)) == ("cat", 3)


@pytest.mark.anyio
async def test_every_source_is_classified_by_the_asynchronous_client(
    stack: Stack, client: httpx.Client, sources: dict[str, Callable[[], Source]]
) -> None:
    made = {kind: make() for kind, make in sources.items()}
    async with AsyncClient(stack.api_url) as classifier:
        labels = {kind: (await classifier.classify(source)).label for kind, source in made.items()}
        many = [outcome async for outcome in classifier.classify_many([CHELSEA, CHELSEA.read_bytes(), made["url"]])]
    for kind in ("open file", "PIL"):
        made[kind].close()  # type: ignore[union-attr]

    assert labels == dict.fromkeys(SOURCES, "cat")
    assert [outcome.result and outcome.result.label for outcome in many] == ["cat"] * 3


def test_job_is_followed_cancelled_and_forgotten(classifier: Client, held_worker: Callable[[], None]) -> None:
    images = photos(2)
    job, other = (classifier.submit(image) for image in images)
    early = job.status()
    with pytest.raises(WaitTimeout):
        job.wait(timeout=0.5)
    cancelled = other.cancel()
    with pytest.raises(JobCancelled):
        other.wait()
    held_worker()
    statuses = [status.status for status in job.events()]
    result = job.wait(timeout=60)
    forgotten = job.cancel()

    assert (early.status, early.result) == (JobStatus.PENDING, None)
    assert cancelled is not None
    assert cancelled.status is JobStatus.CANCELLED
    assert statuses == [JobStatus.PENDING, JobStatus.PROCESSING, JobStatus.COMPLETED]
    assert result.model.id == "vit-tiny-cifar10"
    assert forgotten is None
    with pytest.raises(NotFound) as unknown:
        job.status()
    assert (unknown.value.code, bool(unknown.value.request_id)) == ("job_not_found", True)


@pytest.mark.anyio
async def test_job_of_the_asynchronous_client_is_followed_to_its_end(stack: Stack, client: httpx.Client) -> None:
    async with AsyncClient(stack.api_url) as classifier:
        job = await classifier.submit(photos(1)[0])
        statuses = [status.status async for status in job.events()]
        result = await job.wait(timeout=60)
        known = await classifier.job(job.id).status()

    assert (statuses[-1], known.result) == (JobStatus.COMPLETED, result)


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.name)
def test_image_is_analyzed_once_though_its_submission_is_cut(stack: Stack, classifier: Client, cut: Cut) -> None:
    early = count_jobs(stack)
    port = urlsplit(stack.api_url).port
    assert port
    with cutting_proxy(port, cut) as proxy, Client(proxy.url) as cut_off:
        result = cut_off.classify(photos(1)[0])
        cuts_left = proxy.cuts

    assert (result.model.id, cuts_left, count_jobs(stack) - early) == ("vit-tiny-cifar10", [], 1)


def test_batch_is_analyzed_once_though_its_submission_is_cut(stack: Stack, classifier: Client) -> None:
    early, images = count_jobs(stack), photos(5)
    port = urlsplit(stack.api_url).port
    assert port
    # The first request of a run asks for the quota, over a connection that is kept: it is cut as well.
    with cutting_proxy(port, Cut.BEFORE_ANSWER, Cut.IN_REQUEST) as proxy, Client(proxy.url) as cut_off:
        outcomes = list(cut_off.classify_many(images))
        cuts_left = proxy.cuts

    check_complete(outcomes, images)
    assert (cuts_left, count_jobs(stack) - early) == ([], 5)


def test_many_images_are_complete_and_none_twice_though_the_api_is_killed(stack: Stack, classifier: Client) -> None:
    early, images = count_jobs(stack), photos(IMAGES)
    outcomes: list[Outcome] = []
    for outcome in classifier.classify_many(iter(images)):
        if not outcomes:
            os.kill(stack.pid("api"), signal.SIGKILL)
        outcomes.append(outcome)

    check_complete(outcomes, images)
    assert count_jobs(stack) - early == IMAGES


def test_quota_makes_a_long_run_slow_and_nothing_else(stack: Stack, classifier: Client) -> None:
    images = photos(IMAGES)
    with (
        one_api(stack.redis_url, RATE_LIMIT_MAX_REQUESTS="50", RATE_LIMIT_INTERVAL_SECONDS="4") as url,
        Client(url) as limited,
    ):
        outcomes = list(limited.classify_many(images))

    check_complete(outcomes, images)


def test_model_is_described_with_its_labels(classifier: Client) -> None:
    [status] = classifier.models()
    model = classifier.model(status.id)

    assert (model.id, model.is_default, "cat" in model.labels) == ("vit-tiny-cifar10", True, True)


def test_leaving_a_run_early_cancels_what_waits(
    stack: Stack, classifier: Client, held_worker: Callable[[], None], tmp_path: Path
) -> None:
    outcomes = classifier.classify_many([tmp_path / "missing.png", *photos(100)])
    first = next(outcomes)
    depth = classifier.models()[0].queue_depth
    outcomes.close()

    assert isinstance(first.error, FileNotFoundError)
    assert depth > 0
    wait_until(lambda: classifier.models()[0].queue_depth == 0, "the queue is empty")


def test_threads_share_a_client(classifier: Client) -> None:
    labels: list[str] = []
    images = photos(8)
    threads = [threading.Thread(target=lambda i=i: labels.append(classifier.classify(i).label)) for i in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(labels) == 8
