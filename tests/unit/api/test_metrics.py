"""The API's counters, and the values that it reads from Redis for a scrape."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import fakeredis
import httpx
import pytest
from fakeredis import FakeServer
from prometheus_client import REGISTRY, Metric

from image_analysis_api.queue_metrics import MAX_MODELS, QueueMetrics
from image_analysis_common import keys, tasks
from image_analysis_common.errors import UrlRefused
from image_analysis_common.settings import BUNDLED_MODEL
from support.fakes import FakeFetcher, MakeClient
from support.replies import decoded
from support.samples import base64_body, make_png
from support.scraping import values

pytestmark = pytest.mark.anyio


class Counted:
    """The counts since this was made; the counters themselves last as long as the process."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[tuple[str, ...], float]:
        samples = [(sample, family) for family in REGISTRY.collect() for sample in family.samples]
        return {
            (sample.name.removeprefix("image_analysis_"), *(value for _, value in sorted(sample.labels.items()))): (
                sample.value
            )
            for sample, family in samples
            if family.name.startswith("image_analysis_") and family.type == "counter"
        }

    def by(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the counts of one metric that have increased."""
        grown = {key: value - self._before.get(key, 0) for key, value in self._now().items() if key[0] == name}
        return {key[1:]: value for key, value in grown.items() if value}


async def test_requests_count_under_the_template_of_their_route(client: httpx.AsyncClient) -> None:
    counted = Counted()

    for number in range(3):
        await client.get(f"/analysis-status/00000000-0000-0000-0000-00000000000{number}")
        await client.get(f"/nowhere/{number}")
        await client.request(f"BREW{number}", "/health")
    await client.get("/health")

    assert counted.by("http_requests_total") == {
        ("GET", "/analysis-status/{job_id}", "404"): 3,
        ("GET", "other", "404"): 3,
        ("GET", "/health", "200"): 1,
        ("other", "/health", "405"): 3,
    }
    assert counted.by("http_problems_total") == {("job_not_found",): 3, ("not_found",): 3, ("method_not_allowed",): 3}


def latency_s(method: str, route: str) -> float:
    labels = {"method": method, "route": route}
    return REGISTRY.get_sample_value("image_analysis_http_request_duration_seconds_sum", labels) or 0


async def test_latency_is_without_the_wait_that_a_client_asked_for(client: httpx.AsyncClient) -> None:
    routes = [("POST", "/analyze-image"), ("GET", "/analysis-status/{job_id}")]
    before_s = [latency_s(*route) for route in routes]

    submitted = await client.post("/analyze-image", json=base64_body(make_png()), headers={"Prefer": "wait=1"})
    asked = await client.get(f"/analysis-status/{submitted.json()['job_id']}?wait=1")

    for answer, route, earlier_s in zip((submitted, asked), routes, before_s, strict=True):
        elapsed_s = answer.elapsed.total_seconds()
        assert elapsed_s >= 1
        assert 0 < latency_s(*route) - earlier_s <= elapsed_s - 0.99


async def test_latency_is_without_the_time_in_which_a_body_arrives(client: httpx.AsyncClient) -> None:
    async def send_slowly() -> AsyncIterator[bytes]:
        image = make_png(7)
        for part in (image[:10], image[10:]):
            yield part
            await asyncio.sleep(0.2)

    before_s = latency_s("POST", "/analyze-image")

    answer = await client.post("/analyze-image", content=send_slowly(), headers={"Content-Type": "image/png"})

    assert answer.status_code == 202
    elapsed_s = answer.elapsed.total_seconds()
    assert 0 < latency_s("POST", "/analyze-image") - before_s <= elapsed_s - 0.39


async def test_submissions_count_by_outcome(client: httpx.AsyncClient) -> None:
    counted = Counted()

    for body in (base64_body(make_png(1)), base64_body(make_png(1)), base64_body(make_png(2)), {}):
        await client.post("/analyze-image", json=body)

    assert counted.by("submissions_total") == {("queued",): 2, ("coalesced",): 1}
    assert counted.by("http_problems_total") == {("invalid_request",): 1}


async def test_verdicts_of_the_rate_limit_count_for_what_costs(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=2)
    counted = Counted()

    for _ in range(3):
        await client.post("/analyze-image", json={})
        await client.get("/analysis-status/00000000-0000-0000-0000-000000000000")

    assert counted.by("rate_limit_verdicts_total") == {("admitted",): 2, ("refused",): 1}


async def test_request_that_could_not_be_counted_counts_as_uncounted(
    make_client: MakeClient, redis_server: FakeServer
) -> None:
    client = await make_client(rate_limit_fail_open=True)
    redis_server.connected = False
    counted = Counted()

    await client.post("/analyze-image", json={})

    assert counted.by("rate_limit_verdicts_total") == {("uncounted",): 1}


async def test_crash_counts_as_an_internal_error(client: httpx.AsyncClient, fetcher: FakeFetcher) -> None:
    fetcher.answers = {"http://a.example/": RuntimeError("a fault of ours"), "http://b.example/": UrlRefused("no")}
    counted = Counted()

    for url in fetcher.answers:
        await client.post("/analyze-image", json={"image_url": url})

    assert counted.by("http_problems_total") == {("internal_error",): 1, ("url_refused",): 1}
    assert counted.by("http_requests_total") == {
        ("POST", "/analyze-image", "500"): 1,
        ("POST", "/analyze-image", "400"): 1,
    }


class Redis(fakeredis.FakeRedis):
    """Adds INFO, which the fake does not have."""

    def info(self, section: str | None = None, *args: str, **kwargs: Any) -> dict[str, Any]:
        return {"used_memory": 1_000_000, "maxmemory": 0}


@pytest.fixture
def backlog(redis_server: FakeServer) -> QueueMetrics:
    return QueueMetrics(Redis(server=redis_server), BUNDLED_MODEL)


def collect(backlog: QueueMetrics) -> list[Metric]:
    return list(backlog.collect())


async def test_queue_shows_its_depth_and_its_oldest_job_at_any_position(
    client: httpx.AsyncClient, backlog: QueueMetrics, redis_server: FakeServer
) -> None:
    redis = fakeredis.FakeRedis(server=redis_server)
    for seed in range(3):
        await client.post("/analyze-image", json=base64_body(make_png(seed)))
    _, second, _ = redis.lrange(f"rq:queue:{tasks.queue_name(BUNDLED_MODEL)}", 0, -1)
    redis.hset(f"rq:job:{decoded(second)}", "created_at", (datetime.now(UTC) - timedelta(minutes=10)).isoformat())

    found = collect(backlog)

    assert values(found, "queue_jobs") == {(BUNDLED_MODEL,): 3}
    assert 599 <= values(found, "queue_oldest_job_age_seconds")[(BUNDLED_MODEL,)] <= 630


def test_model_without_any_worker_yet_shows_no_worker(backlog: QueueMetrics) -> None:
    found = collect(backlog)

    assert values(found, "queue_jobs") == {(BUNDLED_MODEL,): 0}
    assert values(found, "queue_oldest_job_age_seconds") == {(BUNDLED_MODEL,): 0}
    assert values(found, "workers") == {(BUNDLED_MODEL, state): 0 for state in ("idle", "busy", "suspended")}


def test_models_of_other_deployments_are_bounded_and_come_after_ours(
    backlog: QueueMetrics, redis_server: FakeServer
) -> None:
    announced = {f"acme/{beat_s}": beat_s for beat_s in range(200)}
    fakeredis.FakeRedis(server=redis_server).zadd(keys.MODELS, announced)

    shown = [model for (model,) in values(collect(backlog), "queue_jobs")]

    assert shown == [BUNDLED_MODEL, *(f"acme/{beat_s}" for beat_s in range(199, 199 - MAX_MODELS, -1))]


def test_scrape_without_redis_shows_only_that_redis_is_down(backlog: QueueMetrics, redis_server: FakeServer) -> None:
    redis_server.connected = False

    found = collect(backlog)

    assert [family.name for family in found] == ["image_analysis_redis_up"]
    assert values(found, "redis_up") == {(): 0}


def test_webhooks_that_wait_show_with_the_one_that_is_longest_overdue(
    backlog: QueueMetrics, redis_server: FakeServer
) -> None:
    redis = fakeredis.FakeRedis(server=redis_server)

    def shown() -> tuple[float, float]:
        found = collect(backlog)
        return values(found, "webhooks_pending")[()], values(found, "webhooks_overdue_seconds")[()]

    nothing = shown()
    redis.zadd(keys.DELIVERIES, {"between two attempts": redis.time()[0] + 600})
    waiting = shown()
    redis.zadd(keys.DELIVERIES, {"overdue": redis.time()[0] - 600})
    pending, overdue_s = shown()

    assert (nothing, waiting) == ((0, 0), (1, 0))
    assert pending == 2
    assert 599 <= overdue_s <= 630
