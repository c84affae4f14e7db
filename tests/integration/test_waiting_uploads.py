"""While a client waits for its answer, its upload takes up neither the budget for bodies nor memory."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest
from redis import Redis

from image_analysis_common import keys
from support.api_processes import api_process
from support.memory import resident_bytes
from support.replies import decoded
from support.samples import make_png
from support.steps import Steps
from support.waiting import wait_until

MODEL = "nobody-serves-this"
SIZE_BYTES = 9_000_000
ROOM_BYTES = 30_000_000
"""The budget for all bodies: two uploads in base64, or three in binary."""

UPLOADS = 30
GROWTH_BYTES = 100_000_000
"""Memory for one upload while it is read, and what the allocator keeps of it; 30 uploads are 270 MB."""

IMAGE = make_png().ljust(SIZE_BYTES, b"\0")
TEXT = base64.b64encode(IMAGE).decode()
FORMS: dict[str, dict[str, Any]] = {
    "image": {"content": IMAGE, "headers": {"Content-Type": "image/png"}},
    "form": {"files": {"file": IMAGE}},
    "JSON": {"content": json.dumps({"image_data": TEXT}), "headers": {"Content-Type": "application/json"}},
}


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[tuple[str, int]]:
    limits = {"MAX_IMAGE_BYTES": str(SIZE_BYTES), "MAX_BODIES_BYTES": str(ROOM_BYTES)}
    with api_process(redis_url, MODEL_ID=MODEL, RATE_LIMIT_MAX_REQUESTS="1000000", **limits) as api:
        yield api


def post(url: str, form: str, path: str = "/analyze-image", **headers: str) -> httpx.Response:
    request = FORMS[form] | {"headers": FORMS[form].get("headers", {}) | headers}
    return httpx.post(f"{url}{path}", **request, trust_env=False)


def jobs(redis: Redis) -> int:
    return sum(1 for _ in redis.scan_iter(keys.job("*"), count=1000))


@pytest.mark.parametrize("form", FORMS)
def test_waiting_uploads_leave_room_and_memory_to_others(redis: Redis, api: tuple[str, int], form: str) -> None:
    url, process_id = api
    post(url, form).raise_for_status()  # the allocator keeps some memory of the first one
    redis.flushall()
    before_bytes = resident_bytes(process_id)

    with ThreadPoolExecutor(UPLOADS) as threads:
        waits = []
        for number in range(UPLOADS):
            waits.append(threads.submit(post, url, form, Prefer="wait=60"))
            is_settled: Callable[[], bool] = partial(lambda n: jobs(redis) > n or waits[n].done(), number)
            wait_until(is_settled, "the upload is accepted or refused")
        growth_bytes = resident_bytes(process_id) - before_bytes
        other = post(url, form)
        [leader] = redis.scan_iter(keys.leader(MODEL, "*"))
        Steps(redis, MODEL).complete(decoded(redis.get(leader)))

    assert {wait.result().status_code for wait in waits} == {200}
    assert other.status_code == 202
    assert growth_bytes < GROWTH_BYTES, f"{growth_bytes / 1e6:.0f} MB"
