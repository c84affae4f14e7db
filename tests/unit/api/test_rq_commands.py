"""The commands that queue a job are those that RQ would send for it, word by word."""

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fakeredis import FakeRedis
from redis import Redis
from rq import Queue, Retry
from rq.job import Job
from rq.utils import utcparse

from image_analysis_api.jobs.queue import RqCommands
from image_analysis_common import keys, tasks

QUEUE = "analysis-pets"
META = {"request_id": "räquest-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def make_job(queue: Queue, job_id: str) -> Job:
    return queue.create_job(
        tasks.ANALYZE_IMAGE,
        kwargs={"job_id": job_id},
        job_id=job_id,
        timeout=30,
        ttl=keys.UNENDED_JOB_TTL_S,
        result_ttl=keys.FINISHED_JOB_TTL_S,
        failure_ttl=keys.ENDED_JOB_TTL_S,
        retry=Retry(max=tasks.MAX_ATTEMPTS, enqueue_at_front=True),
        description="image 0123456789ab",
        meta=META,
    )


def read_commands(words: list[Any]) -> list[tuple[Any, ...]]:
    commands = []
    while words:
        commands.append(tuple(words[1 : words[0] + 1]))
        words = words[words[0] + 1 :]
    return commands


def our_commands(job_id: str, *, at_front: bool) -> list[tuple[Any, ...]]:
    commands = RqCommands(QUEUE, job_timeout_s=30, at_front=at_front)
    commands.words(str(uuid4()), "another image", {"request_id": "another"})
    return read_commands(commands.words(job_id, "image 0123456789ab", META))


def read_fields(commands: list[tuple[Any, ...]]) -> dict[str, Any]:
    [fields] = [command[2:] for command in commands if command[0] == "HSET" and len(command) > 4]
    return dict(zip(fields[::2], fields[1::2], strict=True))


@pytest.mark.parametrize("at_front", [False, True])
def test_every_word_but_two_times_and_the_compression_is_rqs(at_front: bool) -> None:
    job_id, connection = str(uuid4()), Redis()  # never connects
    queue = Queue(QUEUE, connection=connection, serializer=tasks.SERIALIZER)
    queue.redis_server_version = (6, 2, 0)
    pipeline = connection.pipeline()
    queue.enqueue_job(make_job(queue, job_id), pipeline=pipeline, at_front=at_front)
    theirs: list[tuple[Any, ...]] = [command for command, _ in pipeline.command_stack]

    ours = our_commands(job_id, at_front=at_front)

    assert [command[:2] for command in ours] == [command[:2] for command in theirs]
    assert [command for command in ours if command[0] != "HSET"] == [
        command for command in theirs if command[0] != "HSET"
    ]
    fields, expected = read_fields(ours), read_fields(theirs)
    assert list(fields) == list(expected)
    assert zlib.decompress(fields.pop("data")) == zlib.decompress(expected.pop("data"))
    for name in ("created_at", "enqueued_at"):
        assert abs(utcparse(fields.pop(name)) - utcparse(expected.pop(name))) < timedelta(seconds=10)
    assert fields == expected


@pytest.mark.parametrize("at_front", [False, True])
def test_rq_reads_the_job_as_it_would_have_made_it(at_front: bool) -> None:
    job_id, redis = str(uuid4()), FakeRedis()
    queue = Queue(QUEUE, connection=redis, serializer=tasks.SERIALIZER)
    expected = make_job(queue, job_id)
    for command in our_commands(job_id, at_front=at_front):
        redis.execute_command(*command)  # type: ignore[no-untyped-call]

    job = Job.fetch(job_id, connection=redis, serializer=tasks.SERIALIZER)

    for name in ("func_name", "kwargs", "description", "meta", "timeout", "ttl", "result_ttl", "failure_ttl"):
        assert getattr(job, name) == getattr(expected, name), name
    assert list(job.args) == list(expected.args)
    assert (job.retries_left, job.retry_intervals, job.enqueue_at_front_on_retry) == (tasks.MAX_ATTEMPTS, [0], True)
    assert (job.origin, job.get_status(), queue.job_ids) == (QUEUE, "queued", [job_id])
    assert job.enqueued_at is not None
    assert abs(job.enqueued_at.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=10)
