"""The deliverer as a process: killed, stopped, without a secret; its metrics and its health check."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from redis import Redis

from addresses import Addresses
from image_analysis_common import keys
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.startup import EXIT_CANNOT_START
from support.name_servers import SLOW, name_server
from support.receivers import SECRET, LoopbackReceiver, run_receiver
from support.replies import raw
from support.scraping import scrape, values
from support.steps import Steps
from support.waiting import PATIENCE_S, wait_until

MODULE = "image_analysis_api.deliverer"
SLOW_RECEIVERS = 100
"""More than a deliverer's attempts at once."""

JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def receiver() -> Iterator[LoopbackReceiver]:
    with run_receiver() as receiver:
        yield receiver


@pytest.fixture
def start(redis_url: str) -> Iterator[Start]:
    with ExitStack() as exits:

        def start(**variables: str) -> subprocess.Popen[str]:
            settings = {"REDIS_URL": redis_url, "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8", "WEBHOOK_SECRET": str(SECRET)}
            process = exits.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", MODULE],
                    env=os.environ | settings | variables,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            exits.callback(process.kill)
            return process

        yield start


def end_job(redis: Redis, job_id: str, webhook_url: str) -> None:
    record = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64, webhook_url=webhook_url)
    redis.hset(keys.job(job_id), mapping=record.to_hash())
    redis.expire(keys.job(job_id), 60)
    Steps(redis).complete(job_id)


@pytest.fixture
def ended_job(redis: Redis, receiver: LoopbackReceiver) -> str:
    end_job(redis, JOB_ID, receiver.url)
    return JOB_ID


def is_delivered(redis: Redis) -> bool:
    return not redis.exists(keys.DELIVERIES)


def check(redis_url: str) -> str:
    """Return the error output of the health check."""
    command = [sys.executable, "-m", f"{MODULE}.healthcheck"]
    environment = os.environ | {"REDIS_URL": redis_url}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr.strip()


def test_delivery_survives_a_killed_deliverer(
    redis: Redis, start: Start, receiver: LoopbackReceiver, ended_job: str
) -> None:
    first = start()
    wait_until(lambda: receiver.received, "the first attempt")
    first.kill()
    first.wait()
    [delivery] = redis.zrange(keys.DELIVERIES, 0, -1)
    due_s = redis.zscore(keys.DELIVERIES, raw(delivery))

    assert due_s is not None
    assert due_s - redis.time()[0] > 20  # the delivery is leased
    redis.zadd(keys.DELIVERIES, {ended_job: redis.time()[0]})  # as if the lease had expired
    receiver.may_answer.set()
    start()
    wait_until(lambda: is_delivered(redis), "the second deliverer delivers it")

    assert receiver.received == [f"msg_{ended_job}"] * 2


def test_stopped_deliverer_finishes_running_attempts(
    redis: Redis, start: Start, receiver: LoopbackReceiver, ended_job: str
) -> None:
    deliverer = start()
    wait_until(lambda: receiver.received, "the first attempt")
    deliverer.send_signal(signal.SIGTERM)
    receiver.may_answer.set()

    assert deliverer.wait(PATIENCE_S) == 0
    assert is_delivered(redis)
    assert receiver.received == [f"msg_{ended_job}"]


@pytest.mark.parametrize("secret", [str(SECRET), ""])
def test_with_or_without_a_secret_it_is_healthy_while_it_runs(
    redis: Redis, redis_url: str, start: Start, secret: str
) -> None:
    before = check(redis_url)
    deliverer = start(WEBHOOK_SECRET=secret)
    wait_until(lambda: redis.exists(keys.deliverer(socket.gethostname())), "the deliverer sends heartbeats")
    meanwhile = check(redis_url)
    deliverer.send_signal(signal.SIGTERM)
    said, _ = deliverer.communicate(timeout=PATIENCE_S)

    assert before == f"No deliverer on this host has reported in the last {keys.WORKER_TTL_S} s."
    assert (meanwhile, deliverer.returncode) == ("", 0)
    assert ("webhooks_disabled" in said, "deliverer_started" in said) == (not secret, bool(secret))


def test_attempts_are_counted_and_nothing_of_the_api(
    redis: Redis, start: Start, receiver: LoopbackReceiver, ended_job: str
) -> None:
    port = Addresses.choose({}, free_ports=True).deliverer_metrics_port
    receiver.may_answer.set()

    start(DELIVERER_METRICS_PORT=str(port))
    wait_until(lambda: is_delivered(redis), "the webhook is delivered")
    url = f"http://127.0.0.1:{port}/metrics"
    wait_until(lambda: values(scrape(url), "webhook_attempts_total")[("delivered",)], "the attempt is counted")
    found = scrape(url)

    given_up = {(outcome,): 0 for outcome in ("retried", "rejected", "refused", "expired")}
    assert values(found, "webhook_attempts_total") == {("delivered",): 1, **given_up}
    assert {family.name for family in found} == {"image_analysis_webhook_attempts"}


def test_slow_names_of_many_receivers_delay_no_other(redis: Redis, start: Start, receiver: LoopbackReceiver) -> None:
    receiver.may_answer.set()
    for number in range(SLOW_RECEIVERS):
        end_job(redis, str(uuid4()), f"http://{SLOW}-{number}.test/")
    end_job(redis, JOB_ID, f"http://honest.test:{receiver.server_port}/")

    with name_server({"honest.test": ["127.0.0.1"]}) as names:
        start(FETCH_DNS_SERVERS=names.address)
        wait_until(lambda: names.asked, "the deliverer looks names up")
        wait_until(lambda: receiver.received, "the other receiver gets its webhook", 15)

    assert len({name for name in names.asked if SLOW in name}) > SLOW_RECEIVERS / 2


def test_wrong_setting_is_reported_in_one_line(start: Start) -> None:
    deliverer = start(WEBHOOK_SECRET="t0ps3cret", DELIVERER_METRICS_PORT="many")

    said, _ = deliverer.communicate(timeout=PATIENCE_S)

    assert deliverer.returncode == EXIT_CANNOT_START
    assert said.startswith("image-analysis-deliverer: ")
    assert said.count("\n") == 1
    assert "t0ps3cret" not in said


def test_it_waits_until_redis_is_up_and_logs_it_once(start: Start) -> None:
    deliverer = start(REDIS_URL="redis://127.0.0.1:1")
    assert deliverer.stdout
    first = [deliverer.stdout.readline() for _ in range(2)]

    deliverer.send_signal(signal.SIGTERM)
    rest, _ = deliverer.communicate(timeout=PATIENCE_S)

    assert deliverer.returncode == 0
    assert [line for line in (*first, *rest.splitlines()) if "store_unavailable" in line] == first[1:]
