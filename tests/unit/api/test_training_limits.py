"""What a training may cost: no bytes beyond the budget or after its answer, and no time of the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_api.outbound.fetcher import Hold
from image_analysis_common import keys
from image_analysis_common.classifiers import TrainingPlan
from image_analysis_common.errors import FetchFailed
from support.announcements import MODEL, announce
from support.fakes import FakeFetcher, MakeClient
from support.replies import raw
from support.samples import make_png
from support.waiting import eventually

pytestmark = pytest.mark.anyio


class SlowFetcher(FakeFetcher):
    """Fetches nothing at /gone.png; every other fetch waits until `may_end`."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = asyncio.Event()
        self.running = 0

    async def fetch(self, url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        if url.endswith("/gone.png"):
            raise FetchFailed("It is gone.")
        self.running += 1
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        image = make_png() + bytes(3000)
        hold(len(image))
        return image

    async def is_idle(self) -> bool:
        return self.running == 0


@pytest.fixture
def fetcher() -> FakeFetcher:
    return SlowFetcher()


async def test_fetches_of_a_refused_training_end_with_it(
    make_client: MakeClient, redis: FakeRedis, fetcher: SlowFetcher
) -> None:
    """Their bytes would count against the budget of all requests until the process ends."""
    await announce(redis)
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=10_000)
    names = ["1.png", "2.png", "3.png", "gone.png"]
    examples = [{"label": "cat", "image_url": f"https://host.test/{name}"} for name in names]

    refused = await client.put("/classifiers/pets", json={"examples": examples})
    fetcher.may_end.set()
    await eventually(fetcher.is_idle, "no fetch runs")

    assert (refused.status_code, refused.json()["code"]) == (400, "fetch_failed")
    assert refused.json()["detail"] == "examples[3]: It is gone."
    small = await client.post("/analyze-image", content=b" " * 5000)
    assert small.json()["code"] == "unsupported_media_type"


async def put(client: httpx.AsyncClient, redis: FakeRedis, size_bytes: int, name: str = "pets") -> httpx.Response:
    """Train on ten images whose embeddings of this size are in the cache."""
    examples = []
    for number in range(10):
        image_hash = f"{number:064x}"
        await redis.hset(keys.embedding(image_hash), MODEL.cache_field, bytes(size_bytes))
        examples.append({"label": f"l{number % 2}", "image_hash": image_hash})
    return await client.put(f"/classifiers/{name}", json={"examples": examples})


async def test_embeddings_count_in_the_budget_of_all_bodies_until_the_answer(
    make_client: MakeClient, redis: FakeRedis
) -> None:
    await announce(redis)
    client = await make_client(max_image_bytes=5000, max_bodies_bytes=10_000)

    large = await put(client, redis, size_bytes=780)
    left = [key async for key in redis.scan_iter(keys.job("*"))]
    small = [await put(client, redis, size_bytes=300, name=f"pets-{number}") for number in range(3)]

    assert (large.status_code, large.json()["code"], left) == (503, "unavailable", [])
    assert [answer.status_code for answer in small] == [202] * 3


async def test_large_plan_is_written_in_a_thread(
    make_client: MakeClient, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await announce(redis)
    client, to_thread, written = await make_client(), asyncio.to_thread, list[bytes]()

    async def watched(function: Callable[..., Any], *arguments: Any) -> Any:
        answer = await to_thread(function, *arguments)
        if any(isinstance(argument, TrainingPlan) for argument in arguments):
            written.append(answer)
        return answer

    monkeypatch.setattr(asyncio, "to_thread", watched)
    answers = [await put(client, redis, size_bytes, name=f"pets-{size_bytes}") for size_bytes in (40, 40_000)]
    stored = [raw(await redis.get(keys.image(answer.json()["job_id"]))) for answer in answers]
    plans = [TrainingPlan.model_validate_json(text) for text in stored]

    assert [plan.model_dump_json().encode() for plan in plans] == stored
    assert [len(plan.examples) for plan in plans] == [10, 10]
    assert written == stored[1:]
