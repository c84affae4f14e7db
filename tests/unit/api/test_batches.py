"""Many images in one request: each gets a job and a verdict."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from fastapi import FastAPI
from prometheus_client import REGISTRY

from image_analysis_api.jobs import batches
from image_analysis_api.outbound.fetcher import Hold
from image_analysis_api.services import IDEMPOTENCY_SLACK_S
from image_analysis_common import keys
from image_analysis_common.errors import Unavailable, UrlRefused
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.announcements import QUEUE_KEY, announce, cache_result, make_result
from support.fakes import FakeFetcher, MakeClient
from support.replies import read_record
from support.samples import base64_body, make_png
from support.steps import Steps
from support.waiting import eventually

pytestmark = pytest.mark.anyio

IMAGES = [make_png(seed) for seed in range(1, 6)]
URL = "http://images.example/5.png"
JSON = {"Content-Type": "application/json"}
NONE = {"PENDING": 0, "PROCESSING": 0, "COMPLETED": 0, "FAILED": 0, "CANCELLED": 0}


def body_of(images: Sequence[bytes | str], **options: object) -> dict[str, Any]:
    return {"images": [{"image_url": i} if isinstance(i, str) else base64_body(i) for i in images], **options}


async def read(redis: FakeRedis, job_id: str) -> JobRecord:
    return read_record(await redis.hgetall(keys.job(job_id)))


WAYS: dict[str, dict[str, Any]] = {
    "JSON": {"json": body_of([*IMAGES[:2], URL], top_k=2, priority="high")},
    "JSON and query": {"json": body_of([*IMAGES[:2], URL]), "params": {"top_k": "2", "priority": "high"}},
    "form": {
        "files": [("file", IMAGES[0]), ("file", IMAGES[1])],
        "data": {"image_url": URL, "top_k": "2", "priority": "high"},
    },
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_image_becomes_a_job_in_its_order(
    client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher, way: str
) -> None:
    fetcher.answers[URL] = IMAGES[4]

    answer = await client.post("/analyze-images", **WAYS[way])

    batch = answer.json()
    job_ids = [job["job_id"] for job in batch["jobs"]]
    records = [await read(redis, job_id) for job_id in job_ids]
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    assert answer.headers["Location"] == f"/analysis-batches/{batch['batch_id']}"
    assert (batch["total"], batch["counts"]) == (3, NONE | {"PENDING": 3})
    assert [record.image_hash for record in records] == [image_digest(i) for i in (*IMAGES[:2], IMAGES[4])]
    assert {record.top_k for record in records} == {2}
    assert sorted(await redis.lrange(QUEUE_KEY, 0, -1)) == sorted(job_id.encode() for job_id in job_ids)
    assert [await redis.get(keys.image(job_id)) for job_id in job_ids] == [*IMAGES[:2], IMAGES[4]]


async def test_bad_images_fail_alone_and_say_why(client: httpx.AsyncClient, fetcher: FakeFetcher) -> None:
    fetcher.answers |= {URL: UrlRefused("The URL leads nowhere."), URL + "?": IMAGES[1]}
    bad = [{"image_data": "%"}, {"image_data": "aGVsbG8="}, {"image_url": URL}]
    refused = REGISTRY.get_sample_value("image_analysis_submissions_total", {"outcome": "refused"}) or 0

    answer = await client.post(
        "/analyze-images", json={"images": [base64_body(IMAGES[0]), *bad, {"image_url": URL + "?"}]}
    )

    batch = answer.json()
    assert (answer.status_code, batch["counts"]) == (202, NONE | {"PENDING": 2, "FAILED": 3})
    assert [job["error"] and job["error"]["code"] for job in batch["jobs"]] == [
        None,
        "invalid_base64",
        "unsupported_image",
        "url_refused",
        None,
    ]
    single = (await client.get(f"/analysis-status/{batch['jobs'][3]['job_id']}")).json()
    assert single == batch["jobs"][3]
    assert single["error"]["detail"] == "The URL leads nowhere."
    assert REGISTRY.get_sample_value("image_analysis_submissions_total", {"outcome": "refused"}) == refused + 3


async def test_known_results_are_answered_at_once_and_twins_run_once(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await announce(redis)
    await cache_result(redis, IMAGES[0], make_result())

    known = await client.post("/analyze-images", json=body_of([IMAGES[0], IMAGES[0]]))
    twins = await client.post("/analyze-images", json=body_of([IMAGES[1], IMAGES[0], IMAGES[1]]))

    assert (known.status_code, known.json()["counts"]) == (200, NONE | {"COMPLETED": 2})
    assert {job["result"]["label"] for job in known.json()["jobs"]} == {"l0"}
    assert [job["cached"] for job in twins.json()["jobs"]] == [False, True, False]
    assert await redis.llen(QUEUE_KEY) == 1
    assert "No worker serves its model now" in twins.json()["message"]


async def test_batch_exists_as_long_as_one_of_its_jobs(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    batch = (await client.post("/analyze-images", json=body_of(IMAGES[:2]))).json()
    first, second = (job["job_id"] for job in batch["jobs"])
    path = f"/analysis-batches/{batch['batch_id']}"

    whole = (await client.get(path)).json()
    await redis.delete(keys.job(first))
    half = (await client.get(path)).json()
    await redis.delete(keys.job(second))
    gone = await client.get(path)

    assert [job["queue_position"] for job in whole["jobs"]] == [1, 2]
    assert whole == {"batch_id": batch["batch_id"], "total": 2, "counts": NONE | {"PENDING": 2}, "jobs": whole["jobs"]}
    assert (half["total"], half["counts"], half["jobs"][0]["job_id"]) == (2, NONE | {"PENDING": 1}, second)
    assert (gone.status_code, gone.json()["code"]) == (404, "batch_not_found")
    assert await redis.ttl(keys.batch(batch["batch_id"])) > keys.WAITING_JOB_TTL_S


async def has_waiters(app: FastAPI) -> bool:
    return len(app.state.services.waiting_room) > 0


async def test_wait_lasts_until_the_last_job_has_ended(
    app: FastAPI, client: httpx.AsyncClient, redis: FakeRedis, steps: Steps
) -> None:
    batch = (await client.post("/analyze-images", json=body_of(IMAGES[:3]))).json()
    job_ids = [job["job_id"] for job in batch["jobs"]]
    path = f"/analysis-batches/{batch['batch_id']}?wait="

    short = await client.get(path + "1")
    asking = asyncio.create_task(client.get(path + "30"))
    await redis.delete(keys.job(job_ids[1]))
    await eventually(lambda: has_waiters(app), "somebody waits")
    steps.complete(job_ids[2])
    half = (await client.get(path + "0")).json()
    assert not asking.done()
    steps.complete(job_ids[0])
    mistaken = await client.get(path + "61")

    assert short.json()["counts"] == NONE | {"PENDING": 3}
    assert half["counts"] == NONE | {"PENDING": 1, "COMPLETED": 1}
    assert (await asyncio.wait_for(asking, 10)).json()["counts"] == NONE | {"COMPLETED": 2}
    assert (mistaken.status_code, mistaken.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(("batch_id", "status"), [("7", 400), ("3f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e", 404)])
async def test_unknown_batch_is_an_error(client: httpx.AsyncClient, batch_id: str, status: int) -> None:
    assert (await client.get(f"/analysis-batches/{batch_id}")).status_code == status


MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({"content": b"", "headers": JSON}, 400, "There is no image"),
    "no JSON": ({"content": b"[", "headers": JSON}, 400, "an object with images."),
    "no list": ({"json": base64_body(IMAGES[0])}, 400, "images must be a list of one or more objects"),
    "empty list": ({"json": {"images": []}}, 400, "images must be a list of one or more objects"),
    "text for an image": ({"json": {"images": ["x"]}}, 400, "images[0] must be a JSON object with image_data"),
    "both sources": (
        {"json": {"images": [base64_body(IMAGES[0]), {**base64_body(IMAGES[1]), "image_url": URL}]}},
        400,
        "images[1]: Send exactly one of image_data and image_url.",
    ),
    "number for bytes": ({"json": {"images": [{"image_data": 1}]}}, 400, "images[0].image_data must be a string"),
    "option of one image": (
        {"json": {"images": [{**base64_body(IMAGES[0]), "top_k": 1}]}},
        400,
        "images[0] has an unknown field, top_k: its fields are image_data, image_url.",
    ),
    "too many values": ({"content": b"[" * 20_001, "headers": JSON}, 400, "The body has more than 20000 values"),
    "bad option": ({"json": body_of(IMAGES[:1], top_k=0)}, 400, "top_k must be a whole number"),
    "form without an image": ({"files": {"top_k": (None, "1")}}, 400, "There is no image"),
    "an image": (
        {"content": IMAGES[0], "headers": {"Content-Type": "image/png"}},
        415,
        "Set the Content-Type to application/json or multipart/form-data.",
    ),
    "too many": ({"json": body_of([IMAGES[0]] * 5)}, 413, "A batch may have 4 images, and this one has 5"),
    "too many files": ({"files": [("file", IMAGES[0])] * 5}, 400, "too many parts named file: send at most 4"),
    "too long": ({"json": body_of([bytes(40_000)] * 2)}, 413, "The body has more than"),
    "unknown model": ({"json": body_of([URL], model="other")}, 404, "There is no such model. Known models"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_in_the_request_itself_accepts_nothing(
    make_client: MakeClient, redis: FakeRedis, mistake: str
) -> None:
    request, status, detail = MISTAKES[mistake]
    client = await make_client(max_batch_images=4, max_image_bytes=10_000, max_batch_bytes=10_000)

    answer = await client.post("/analyze-images", **request)

    assert (answer.status_code, detail in answer.json()["detail"]) == (status, True), answer.text
    assert not [key async for key in redis.scan_iter("analysis_*")]


async def test_batch_counts_as_its_images_and_passes_as_a_whole_or_not_at_all(
    make_client: MakeClient, redis: FakeRedis
) -> None:
    client = await make_client(rate_limit_max_requests=5)

    most = await client.post("/analyze-images", json=body_of(IMAGES[:4]))
    many = await client.post("/analyze-images", json=body_of([*IMAGES, make_png(9)]))
    other = await make_client(rate_limit_max_requests=5)
    await redis.delete(keys.rate_limit("198.51.100.7"))
    few = [await other.post("/analyze-images", json=body_of(IMAGES[:3])) for _ in range(2)]

    assert (most.status_code, most.headers["RateLimit"].split(";")[1]) == (202, "r=1")
    assert (many.status_code, many.json()["code"]) == (413, "batch_too_large")
    assert "Each of the 6 images counts as a request, and the limit is 5 requests in 60 s" in many.json()["detail"]
    assert [answer.status_code for answer in few] == [202, 429]
    assert int(few[1].headers["Retry-After"]) == 60
    assert "The batch has 3 images, and you may send 2 now: send at most 2, or all of them in 60 s" in few[1].text
    assert few[1].headers["RateLimit"].startswith('"default";r=2;')
    assert await redis.llen(keys.rate_limit("198.51.100.7")) == 3


async def test_batch_that_is_refused_leaves_room_for_the_images_that_may_be_sent(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=5)

    refused = [await client.post("/analyze-images", json=body_of([*IMAGES, make_png(9)])) for _ in range(3)]
    whole = await client.post("/analyze-images", json=body_of(IMAGES))

    assert [answer.status_code for answer in (*refused, whole)] == [413, 413, 413, 202]
    assert refused[0].headers["RateLimit"].startswith('"default";r=5;')


async def test_batch_is_refused_before_its_body_is_read_when_nothing_may_be_sent(make_client: MakeClient) -> None:
    client = await make_client(rate_limit_max_requests=3)
    await client.post("/analyze-images", json=body_of(IMAGES[:3]))
    has_been_read = []

    async def body() -> AsyncIterator[bytes]:
        has_been_read.append(True)
        yield json.dumps(body_of(IMAGES[:1])).encode()

    refused = await client.post("/analyze-images", content=body(), headers=JSON)

    assert (refused.status_code, has_been_read) == (429, [])


async def test_batch_whose_body_outlasts_the_window_takes_no_later_request_out(
    make_client: MakeClient, redis: FakeRedis
) -> None:
    client = await make_client(rate_limit_max_requests=2, rate_limit_interval_seconds=1)
    key = keys.rate_limit("198.51.100.7")

    async def has_left_the_window() -> bool:
        return not await redis.exists(key)

    async def slow_body() -> AsyncIterator[bytes]:
        yield b" "
        await eventually(has_left_the_window, "the batch's own count has left the window")
        await client.post("/analyze-image", json=base64_body(IMAGES[0]))
        yield json.dumps(body_of(IMAGES[:2])).encode()

    refused = await client.post("/analyze-images", content=slow_body(), headers=JSON)

    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert await redis.llen(key) == 1


async def test_batch_sent_twice_with_its_key_is_the_same_batch(make_client: MakeClient, redis: FakeRedis) -> None:
    client, key = await make_client(rate_limit_max_requests=9), {"Idempotency-Key": "order-7"}

    first, second = [await client.post("/analyze-images", json=body_of(IMAGES[:3]), headers=key) for _ in range(2)]
    other = await client.post("/analyze-images", json=body_of(IMAGES[:2]), headers=key)
    single = await client.post("/analyze-image", json=base64_body(IMAGES[0]), headers=key)

    assert first.json()["batch_id"] == second.json()["batch_id"]
    assert [job["job_id"] for job in first.json()["jobs"]] == [job["job_id"] for job in second.json()["jobs"]]
    assert [answer.status_code for answer in (first, second, other, single)] == [202, 202, 422, 422]
    assert await redis.llen(QUEUE_KEY) == 3
    assert await redis.llen(keys.rate_limit("198.51.100.7")) == 6


@pytest.mark.parametrize("images", [IMAGES[:2], IMAGES[2:4]])
async def test_batch_whose_jobs_are_gone_is_accepted_anew(
    client: httpx.AsyncClient, redis: FakeRedis, images: list[bytes]
) -> None:
    key = {"Idempotency-Key": "order-7"}
    claim = keys.idempotency("198.51.100.7", sha256(b"order-7").hexdigest())
    first = await client.post("/analyze-images", json=body_of(IMAGES[:2]), headers=key)
    await redis.hincrby(claim, "claimed_s", -3600)
    one, another = (job["job_id"] for job in first.json()["jobs"])

    await redis.delete(keys.job(one))
    replayed = await client.post("/analyze-images", json=body_of(IMAGES[:2]), headers=key)
    await redis.delete(keys.job(another))
    anew = await client.post("/analyze-images", json=body_of(images), headers=key)
    again = await client.post("/analyze-images", json=body_of(images), headers=key)

    batches = [answer.json()["batch_id"] for answer in (first, replayed, anew, again)]
    assert [answer.status_code for answer in (first, replayed, anew, again)] == [202] * 4
    assert batches[0] == batches[1] != batches[2] == batches[3]
    assert anew.json()["counts"] == NONE | {"PENDING": 2}


async def test_images_beyond_the_queues_limit_fail_and_a_batch_of_only_such_images_is_refused(
    make_client: MakeClient, redis: FakeRedis
) -> None:
    client = await make_client(max_queue_depth=3)

    some = await client.post("/analyze-images", json=body_of(IMAGES[:4]))
    none = await client.post("/analyze-images", json=body_of([IMAGES[4], make_png(9), b"no image"]))

    assert (some.status_code, some.json()["counts"]) == (202, NONE | {"PENDING": 3, "FAILED": 1})
    late = (await client.get(f"/analysis-status/{some.json()['jobs'][3]['job_id']}")).json()
    assert (late["status"], late["error"]["code"]) == (JobStatus.FAILED, "queue_full")
    assert (none.status_code, none.json()["code"], "Retry-After" in none.headers) == (503, "queue_full", True)
    assert len([key async for key in redis.scan_iter(keys.batch("*"))]) == 1
    assert len([key async for key in redis.scan_iter(keys.job("*"))]) == 4


async def test_fetched_images_are_bounded_together(make_client: MakeClient, fetcher: FakeFetcher) -> None:
    size_bytes = len(make_png(0))
    urls = [f"{URL}?{number}" for number in range(3)]
    fetcher.answers |= {url: make_png(0) for url in urls}
    client = await make_client(max_image_bytes=size_bytes, max_batch_bytes=2 * size_bytes + 5)

    jobs = (await client.post("/analyze-images", json=body_of(urls))).json()["jobs"]

    assert [job["error"] and job["error"]["code"] for job in jobs] == [None, None, "batch_too_large"]


class BusyFetcher(FakeFetcher):
    """Refuses each URL a number of times, as if the client had too many running fetches."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals
        self._tries = Counter[str]()

    async def fetch(self, url: str, client: str, hold: Hold = lambda _: None) -> bytes:
        self._tries[url] += 1
        if self._tries[url] <= self.refusals:
            raise Unavailable("Too many images are being fetched.")
        return await super().fetch(url, client, hold)


class TestBusyFetches:
    @pytest.fixture
    def fetcher(self, monkeypatch: pytest.MonkeyPatch) -> BusyFetcher:
        monkeypatch.setattr(batches, "BUSY_RETRY_S", 0.001)
        fetcher = BusyFetcher(refusals=3)
        fetcher.answers |= {f"{URL}?{number}": make_png(number) for number in range(20)}
        return fetcher

    async def test_batch_waits_for_a_moment_in_which_fetches_are_used_up(
        self, client: httpx.AsyncClient, fetcher: BusyFetcher
    ) -> None:
        answer = await client.post("/analyze-images", json=body_of(list(fetcher.answers)))

        assert (answer.status_code, answer.json()["counts"]) == (202, NONE | {"PENDING": 20})

    async def test_batch_is_refused_whole_while_fetches_stay_used_up_and_its_key_stays_free(
        self, client: httpx.AsyncClient, redis: FakeRedis, fetcher: BusyFetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batches, "BUSY_WAIT_S", 0.01)
        fetcher.refusals = 1_000_000
        request: dict[str, Any] = {
            "json": body_of([IMAGES[0], *fetcher.answers]),
            "headers": {"Idempotency-Key": "order-7"},
        }

        refused = await client.post("/analyze-images", **request)
        left = [key async for key in redis.scan_iter("*") if key != keys.rate_limit("198.51.100.7").encode()]
        fetcher.refusals = 0
        accepted = await client.post("/analyze-images", **request)

        assert (refused.status_code, refused.json()["code"], left) == (503, "unavailable", [])
        assert refused.headers["Retry-After"] == "5"
        assert (accepted.status_code, accepted.json()["counts"]) == (202, NONE | {"PENDING": 21})

    async def test_batch_waits_less_than_a_claim_of_its_key_has_for_each_image(self) -> None:
        assert batches.BUSY_WAIT_S < IDEMPOTENCY_SLACK_S
