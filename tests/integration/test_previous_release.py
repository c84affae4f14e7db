"""Jobs that the previous release queued are finished by a worker of this one, on a real Redis.

`jobs_of_release_2026_11.json` holds what that release (commit d0c20b9, of 2026-11-23) left in Redis 6.2: the type,
remaining TTL and value of each key, with bytes that are not ASCII in base64. It was recorded in three states, each on
an empty Redis. In each, an API process of that release had accepted the same photo of a cat twice over HTTP, so the
second job follows the first one.
- queued: no worker was there.
- popped: a worker's own code, `BatchWorker._pop`, had moved the job to the intermediate list; then its process ended.
- started: `BatchWorker.take` had also started the job; then its process ended.
The keys of the rate limit and of the dead worker itself were left out.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.settings import BUNDLED_MODEL
from support.api_processes import one_api
from support.replies import read_record
from support.waiting import wait_until

RECORDING = Path(__file__).with_name("jobs_of_release_2026_11.json")
STATES = ("queued", "popped", "started")


@pytest.fixture(scope="module")
def api(redis_url: str) -> Iterator[httpx.Client]:
    with one_api(redis_url) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def decode(text: str) -> bytes:
    return base64.b64decode(text[7:]) if text.startswith("base64:") else text.encode()


def restore(redis: Redis, state: str) -> list[str]:
    """Write the recorded keys of a state; return the ID of the job and of its follower."""
    recorded: dict[str, Any] = json.loads(RECORDING.read_text())[state]
    with redis.pipeline() as pipeline:
        for key, entry in recorded["keys"].items():
            value = entry["value"]
            match entry["type"]:
                case "string":
                    pipeline.set(key, decode(value))
                case "hash":
                    pipeline.hset(key, mapping={name: decode(field) for name, field in value.items()})
                case "list":
                    pipeline.rpush(key, *map(decode, value))
                case "set":
                    pipeline.sadd(key, *map(decode, value))
                case "zset":
                    pipeline.zadd(key, value)
            if entry["ttl_ms"] is not None:
                pipeline.pexpire(key, entry["ttl_ms"])
        pipeline.execute()
    return list(recorded["job_ids"])


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("state", STATES)
def test_job_of_the_previous_release_is_finished(redis: Redis, api: httpx.Client, state: str) -> None:
    job_ids = restore(redis, state)

    def statuses() -> set[str]:
        return {read_record(redis.hgetall(keys.job(job_id))).status.value for job_id in job_ids}

    wait_until(lambda: statuses() == {"COMPLETED"}, "the job and its follower have ended")
    bodies = [api.get(f"/analysis-status/{job_id}").raise_for_status().json() for job_id in job_ids]

    assert [(body["status"], body["result"]["label"]) for body in bodies] == [("COMPLETED", "cat")] * 2
    assert {body["result"]["model"]["id"] for body in bodies} == {BUNDLED_MODEL}
    assert not redis.exists(keys.image(job_ids[0]), keys.followers(job_ids[0]))
    assert redis.get(keys.image_bytes(BUNDLED_MODEL)) == b"0"
