"""The worker's health check: whose heartbeat counts, and for how long."""

import socket

import pytest
from fakeredis import FakeRedis

from image_analysis_common import keys
from image_analysis_worker.healthcheck import has_heartbeat
from image_analysis_worker.name import make_worker_name


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis(version=(7,))


@pytest.mark.parametrize(
    ("worker", "age_s", "is_healthy"),
    [
        (make_worker_name(), 0, True),
        (make_worker_name(), keys.WORKER_TTL_S + 1, False),
        ("another-host.1.abcdef", 0, False),
        (f"{socket.gethostname()}-2.1.abcdef", 0, False),
    ],
    ids=["its own", "its own, too old", "another host's", "a host's with a longer name"],
)
def test_only_a_fresh_heartbeat_of_this_host_counts(
    redis: FakeRedis, worker: str, age_s: int, is_healthy: bool
) -> None:
    now_s, _ = redis.time()
    redis.zadd(keys.workers("cats"), {worker: now_s - age_s})

    assert has_heartbeat(redis, "cats") is is_healthy
    assert not has_heartbeat(redis, "dogs")
