"""What a training may cost: no bytes after its answer."""

import asyncio

import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_api.outbound.fetcher import Hold
from image_analysis_common.errors import FetchFailed
from support.announcements import announce
from support.fakes import FakeFetcher, MakeClient
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
