"""POST /analyze-image, and what it writes to Redis."""

import base64
import json
import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from hashlib import sha256
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_api.settings import ApiSettings
from image_analysis_common import keys
from image_analysis_common.errors import FetchFailed, UrlRefused
from image_analysis_common.images import FORMATS
from image_analysis_common.startup import StartupError
from support.announcements import MODEL, QUEUE_KEY, announce, cache_result, make_result, serve
from support.fakes import FakeFetcher, MakeClient
from support.replies import raw
from support.samples import base64_body, encode, make_image, make_jpeg, make_png

pytestmark = pytest.mark.anyio

RESULT = make_result()


DATA_PREFIXES = [
    "data:image/png;base64,",
    "DATA:image/png;charset=utf-8;BASE64,",
    "data:image/png;name=my%20cat.png;base64,",
    "data:image/png;name=cat(1).png;base64,",
    "data:image/png;name=M%C3%BCnchen.png;base64,",
    "data:image/png;name=München.png;base64,",
    'data:image/png;name="cat.png";base64,',
    'data:image/png;name="a cat, asleep.png";base64,',
    'data:image/png;name="cat.png;base64,',
    "data:;base64,",
    "data:;charset=utf-8;base64,",
    "data:image/png; base64,",
    f"data:image/png;name={'x' * 900};base64,",
]


@pytest.mark.parametrize("prefix", ["", *DATA_PREFIXES])
async def test_base64_image_is_queued(client: httpx.AsyncClient, redis: FakeRedis, prefix: str) -> None:
    image = make_png(1)
    await serve(redis)

    answer = await client.post(
        "/analyze-image",
        json={"image_data": prefix + base64.b64encode(image).decode(), "image_url": None},
        headers={"X-Request-ID": "order-7"},
    )

    job_id = answer.json()["job_id"]
    assert answer.status_code == 202
    assert answer.json() == {
        "job_id": str(UUID(job_id)),
        "status": "PENDING",
        "message": f"Accepted. Ask GET /analysis-status/{job_id} for the result.",
    }
    assert answer.headers["location"] == f"/analysis-status/{job_id}"
    assert await redis.lrange(QUEUE_KEY, 0, -1) == [job_id.encode()]
    assert await redis.get(keys.image(job_id)) == image
    job = await redis.hgetall(f"rq:job:{job_id}")
    assert json.loads(job[b"meta"]) == {"request_id": "order-7"}
    assert image not in b"".join(map(raw, job.values()))


async def test_queued_job_states_every_limit(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    job_id = (await client.post("/analyze-image", json=base64_body(make_png()))).json()["job_id"]

    job = await redis.hgetall(f"rq:job:{job_id}")
    limits = {name: int(job[name.encode()]) for name in ("timeout", "ttl", "result_ttl", "failure_ttl", "retries_left")}
    assert limits == {"timeout": 60, "ttl": 172800, "result_ttl": 600, "failure_ttl": 3600, "retries_left": 3}
    for key in (keys.image(job_id), keys.job(job_id), f"rq:job:{job_id}"):
        assert 172000 < await redis.ttl(key) <= 172800


async def test_image_by_url_is_queued(client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher) -> None:
    fetcher.answers["https://photos.example/cat.jpg?token=1"] = image = make_jpeg(2)

    answer = await client.post("/analyze-image", json={"image_url": "https://photos.example/cat.jpg?token=1"})

    assert answer.status_code == 202
    assert await redis.get(keys.image(answer.json()["job_id"])) == image


async def test_fetches_count_for_the_owner_of_the_key_or_the_address(
    client: httpx.AsyncClient, make_client: MakeClient, fetcher: FakeFetcher
) -> None:
    guarded = await make_client(api_keys=f"alice:{sha256(b'a').hexdigest()}")
    guarded.headers["X-API-Key"] = "a"
    fetcher.answers[url := "https://photos.example/cat.jpg"] = make_jpeg(2)

    for each in (client, guarded):
        await each.post("/analyze-image", json={"image_url": url})
        await each.post("/analyze-images", json={"images": [{"image_url": url}]})

    assert fetcher.clients == ["198.51.100.7"] * 2 + ["key:alice"] * 2


@pytest.mark.parametrize("error", [UrlRefused("Use a public address."), FetchFailed("It did not answer.")])
async def test_failed_fetch_is_the_clients_error(
    client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher, error: UrlRefused | FetchFailed
) -> None:
    fetcher.answers["http://x.example/"] = error

    answer = await client.post("/analyze-image", json={"image_url": "http://x.example/"})

    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (400, error.code, error.detail)
    assert not await redis.exists(QUEUE_KEY)


PNG = base64.b64encode(make_png()).decode()
BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "invalid_request"),
    "no JSON": (b"image_data=x", 400, "invalid_request"),
    "cut JSON": (b'{"image_data": "', 400, "invalid_request"),
    "a list": (b"[]", 400, "invalid_request"),
    "a number": (b"7", 400, "invalid_request"),
    "deep nesting": (b"[" * 4000, 400, "invalid_request"),
    "no UTF-8": (b'{"image_data": "\xff"}', 400, "invalid_request"),
    "no source": (b"{}", 400, "invalid_request"),
    "two nulls": (b'{"image_data": null, "image_url": null}', 400, "invalid_request"),
    "both sources": (
        json.dumps({"image_data": PNG, "image_url": "http://x.example/"}).encode(),
        400,
        "invalid_request",
    ),
    "unknown field": (json.dumps({"image_data": PNG, "imageurl": 1}).encode(), 400, "invalid_request"),
    "number as image": (b'{"image_data": 7}', 400, "invalid_request"),
    "list as URL": (b'{"image_url": []}', 400, "invalid_request"),
    "empty image": (b'{"image_data": ""}', 400, "invalid_base64"),
    "empty data URL": (b'{"image_data": "data:image/png;base64,"}', 400, "invalid_base64"),
    "data URL without base64": (b'{"image_data": "data:image/png,abc"}', 400, "invalid_base64"),
    "text": (b'{"image_data": "a photo of my cat"}', 400, "invalid_base64"),
    "no ASCII": ('{"image_data": "größe"}'.encode(), 400, "invalid_base64"),
    "URL-safe alphabet": (b'{"image_data": "_-8="}', 400, "invalid_base64"),
    "no padding": (b'{"image_data": "/9j"}', 400, "invalid_base64"),
    "surplus padding": (json.dumps({"image_data": f"{PNG.rstrip('=')}===="}).encode(), 400, "invalid_base64"),
    "line breaks": (json.dumps({"image_data": PNG[:76] + "\n" + PNG[76:]}).encode(), 400, "invalid_base64"),
    "a PDF": (json.dumps(base64_body(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n")).encode(), 400, "unsupported_image"),
    "an SVG": (
        json.dumps(base64_body(b'<svg xmlns="http://www.w3.org/2000/svg"/>')).encode(),
        400,
        "unsupported_image",
    ),
    "a TIFF": (json.dumps(base64_body(b"II*\x00\x08\x00\x00\x00")).encode(), 400, "unsupported_image"),
    "a PostScript file": (json.dumps(base64_body(b"%!PS-Adobe-3.0 EPSF-3.0\n")).encode(), 400, "unsupported_image"),
    "a JPEG's first bytes": (json.dumps(base64_body(make_jpeg()[:20])).encode(), 400, "unsupported_image"),
    "over 100,000 bytes": (json.dumps(base64_body(bytes(100_001))).encode(), 413, "image_too_large"),
    "over the body limit": (b" " * 180_000, 413, "image_too_large"),
    "over 10,000 pixels": (json.dumps(base64_body(make_png(size_px=(101, 100)))).encode(), 413, "image_too_large"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_bad_body_is_refused_before_anything_is_queued(
    make_client: MakeClient, redis: FakeRedis, case: str
) -> None:
    client = await make_client(max_image_bytes=100_000, max_image_pixels=10_000)
    body, status, code = BAD_BODIES[case]

    answer = await client.post("/analyze-image", content=body, headers={"Content-Type": "application/json"})

    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert not await redis.exists(QUEUE_KEY)


async def test_largest_image_is_accepted(make_client: MakeClient) -> None:
    image = make_png(size_px=(100, 100))
    client = await make_client(max_image_bytes=len(image), max_image_pixels=10_000)

    answer = await client.post("/analyze-image", json=base64_body(image))

    assert answer.status_code == 202


async def test_body_without_length_is_cut_off_at_the_limit(make_client: MakeClient) -> None:
    client = await make_client(max_image_bytes=1000)
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        while sent_bytes < 10_000_000:
            sent_bytes += 1000
            yield b" " * 1000

    answer = await client.post("/analyze-image", content=endless(), headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
    assert sent_bytes < 50_000


async def test_percent_encoded_base64_in_a_data_url_is_queued(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    image = make_png(1) + b"\xff\xff\xfb\xef\xbe\xff\xff"
    image += b"=" * (3 - (len(image) + 1) % 3)  # so that the base64 ends with padding
    text = quote(base64.b64encode(image), safe="")
    assert set(re.findall("%..", text)) == {"%2B", "%2F", "%3D"}

    answer = await client.post("/analyze-image", json={"image_data": f"data:image/png;base64,{text}"})

    assert await redis.get(keys.image(answer.json()["job_id"])) == image


@pytest.mark.parametrize("prefix", ["data:image/png", "data:" + "x" * 2000 + ";base64,", 'data:";base64'])
async def test_data_url_without_a_comma_is_refused_with_the_reason(client: httpx.AsyncClient, prefix: str) -> None:
    answer = await client.post("/analyze-image", json={"image_data": prefix})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_base64")
    assert "without a comma" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
async def test_byte_order_mark_before_json_is_ignored(client: httpx.AsyncClient, path: str) -> None:
    image = base64_body(make_png())
    body = BOM_UTF8 + json.dumps(image if path == "/analyze-image" else {"images": [image]}).encode()

    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 202


@pytest.mark.parametrize("kind", ["binary/octet-stream", "application/x-binary", "Application/Octet-Stream; x=y"])
async def test_bytes_of_no_named_kind_are_read_as_an_image(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post("/analyze-image", content=make_png(), headers={"Content-Type": kind})

    assert answer.status_code == 202


@pytest.mark.parametrize("form", FORMATS)
async def test_image_without_a_content_type_is_queued(client: httpx.AsyncClient, form: str) -> None:
    answer = await client.post("/analyze-image", content=encode(make_image(1), form))

    assert "content-type" not in answer.request.headers
    assert answer.status_code == 202


async def test_empty_body_without_a_content_type_is_400(client: httpx.AsyncClient) -> None:
    answer = await client.post("/analyze-image")

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_body_that_is_not_declared_as_json_is_415(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post(
        "/analyze-image", content=json.dumps(base64_body(make_png())), headers={"Content-Type": content_type}
    )

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_known_image_is_answered_at_once_under_an_id_of_its_own(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    image = make_png(3)
    await announce(redis)
    await cache_result(redis, image, RESULT)

    first, second = [await client.post("/analyze-image", json=base64_body(image)) for _ in range(2)]

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == {
        "job_id": first.json()["job_id"],
        "status": "COMPLETED",
        "result": RESULT.model_dump(),
        "error": None,
        "cached": True,
        "processing_time_ms": 12.5,
    }
    assert first.json()["job_id"] != second.json()["job_id"]
    assert (await client.get(f"/analysis-status/{first.json()['job_id']}")).json() == first.json()
    assert not await redis.exists(QUEUE_KEY)


async def test_result_of_another_revision_is_not_served(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    image = make_png(4)
    await cache_result(redis, image, RESULT)
    await announce(redis, MODEL.model_copy(update={"revision": "r2"}))

    assert (await client.post("/analyze-image", json=base64_body(image))).status_code == 202


async def test_outage_is_503_and_nothing_is_lost_silently(client: httpx.AsyncClient, redis_server: FakeServer) -> None:
    redis_server.connected = False

    answer = await client.post("/analyze-image", json=base64_body(make_png()))

    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_full_queue_is_refused_with_retry_after(make_client: MakeClient, redis: FakeRedis) -> None:
    client = await make_client(max_queue_depth=1)
    await announce(redis)
    await cache_result(redis, make_png(3), RESULT)

    answers = [await client.post("/analyze-image", json=base64_body(make_png(seed))) for seed in (1, 2, 3)]

    assert [answer.status_code for answer in answers] == [202, 503, 200]
    assert answers[1].json()["code"] == "queue_full"
    assert answers[1].headers["retry-after"] == "30"
    assert await redis.llen(QUEUE_KEY) == 1


async def test_same_image_too_often_is_refused_with_retry_after(make_client: MakeClient) -> None:
    client = await make_client(max_queue_depth=1)

    answers = [await client.post("/analyze-image", json=base64_body(make_png())) for _ in range(12)]

    assert [answer.status_code for answer in answers] == [202] * 11 + [503]
    assert (answers[-1].json()["code"], answers[-1].headers["retry-after"]) == ("queue_full", "30")


def test_queue_that_could_not_hold_the_largest_image_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_QUEUE_BYTES", "19999999")

    with pytest.raises(StartupError, match=r"MAX_QUEUE_BYTES: .* at least twice MAX_IMAGE_BYTES"):
        ApiSettings.from_environment()
