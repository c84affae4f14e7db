"""The worker's health check: which heartbeats count, and for how long."""

import socket
import subprocess
import sys

import pytest
from fakeredis import FakeRedis

from image_analysis_common import keys
from image_analysis_worker.healthcheck import has_heartbeat

HOST = socket.gethostname()


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis(version=(7,))


def beat(redis: FakeRedis, worker: str, age_s: int) -> None:
    now_s, _ = redis.time()
    redis.zadd(keys.workers("cats"), {worker: now_s - age_s})


@pytest.mark.parametrize(
    ("worker", "age_s", "is_healthy"),
    [
        (f"{HOST}.1.abcdef", 0, True),
        (f"{HOST}.1.abcdef", keys.WORKER_TTL_S + 1, False),
        (f"{HOST}.999999999.abcdef", 0, False),
        ("another-host.1.abcdef", 0, False),
        (f"{HOST}-2.1.abcdef", 0, False),
    ],
    ids=["its own", "its own, too old", "a process that has ended", "another host's", "a host's with a longer name"],
)
def test_only_a_fresh_heartbeat_of_a_process_on_this_host_counts(
    redis: FakeRedis, worker: str, age_s: int, is_healthy: bool
) -> None:
    beat(redis, worker, age_s)

    assert has_heartbeat(redis, "cats") is is_healthy
    assert not has_heartbeat(redis, "dogs")


def test_heartbeat_of_a_predecessor_with_the_same_process_id_does_not_count(redis: FakeRedis) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as successor:
        beat(redis, f"{HOST}.{successor.pid}.abcdef", age_s=5)
        is_healthy = has_heartbeat(redis, "cats")
        successor.communicate(b"\n")

    assert not is_healthy
