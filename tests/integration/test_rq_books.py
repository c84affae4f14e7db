"""Our script leaves in RQ's keys, field by field, what RQ's own classes leave at the same step of a job."""

import asyncio
import json
import re
import time
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from redis import Redis
from redis.client import Pipeline
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys, tasks
from image_analysis_common.job_errors import CorruptImage
from image_analysis_common.models import AnalysisResult, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.jobs.outcomes import describe
from image_analysis_worker.jobs.records import Records
from image_analysis_worker.rq import steps
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.direct import QUEUE, DirectQueue, take
from support.redis_server import run_redis
from support.steps import RESULT

JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"
WORKER = "worker-1"
WORKED_S = 1.5
OUTCOMES: dict[str, AnalysisResult | Exception] = {
    "complete": RESULT,
    "fail": CorruptImage(),
    "retry": RuntimeError("a fault"),
}
STEPS = ("start", "complete", "fail", "retry", "give back", "abandon", "end without a start")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of its own: all keys of RQ are compared, and the workers of other tests write some."""
    with run_redis(tmp_path_factory.mktemp("rq_books")) as server:
        yield server.url


class ByOurScript:
    """Takes the steps as a worker of ours does."""

    def __init__(self, redis: Redis) -> None:
        self.worker = BatchWorker("m", redis, Records("m", cache_ttl_s=60))
        self.worker.name = WORKER

    def take(self, step: str) -> None:
        if step == "end without a start":
            self.worker.connection.hset(keys.job(JOB_ID), mapping={"status": "COMPLETED", "result": dump(RESULT)})
            assert take(self.worker) == []
            return
        [job] = take(self.worker)
        if outcome := OUTCOMES.get(step):
            job.end(outcome)
            job.processing_time_ms = WORKED_S * 1000
            self.worker.finish([job])
        elif step == "give back":
            self.worker.give_back([job])
        elif step == "abandon":
            found = RqJob.fetch(JOB_ID, self.worker.connection, tasks.SERIALIZER)
            abandoned = self.worker.records.retry(JOB_ID, rq=steps.abandon(job.execution.id, found.retries_left))
            self.worker.abandon([abandoned], [job.execution.composite_key])


class ByRq:
    """Takes the steps with RQ's own classes, in the order of RQ's own worker."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queue = Queue(QUEUE, connection=redis, serializer=tasks.SERIALIZER)
        self._worker = BaseWorker([self._queue], name=WORKER, connection=redis, serializer=tasks.SERIALIZER)

    def take(self, step: str) -> None:
        self._redis.lmove(self._queue.key, self._queue.intermediate_queue_key)
        job = RqJob.fetch(JOB_ID, self._redis, tasks.SERIALIZER)
        execution = None
        with self._redis.pipeline() as pipeline:
            pipeline.lrem(self._queue.intermediate_queue_key, 1, JOB_ID)
            if step != "end without a start":
                execution = Execution.create(job, keys.WORKER_TTL_S, pipeline, worker_name=WORKER)
                job.prepare_for_execution(WORKER, pipeline)
                pipeline.expire(job.key, keys.UNENDED_JOB_TTL_S)
            self._worker.set_state(WorkerStatus.BUSY if execution else WorkerStatus.IDLE, pipeline)
            pipeline.expire(self._worker.key, keys.WORKER_TTL_S)
            pipeline.execute()
            self._end(step, job, execution, pipeline)
            if execution and step == "abandon":  # its execution expires; RQ's cleanup only removes it here
                pipeline.zrem(self._queue.started_job_registry.key, execution.composite_key)
            elif execution and step != "start":
                execution.delete(job, pipeline)
            if step in OUTCOMES:
                self._worker.set_state(WorkerStatus.IDLE, pipeline)
                self._worker.increment_total_working_time(timedelta(seconds=WORKED_S), pipeline)
                pipeline.expire(self._worker.key, keys.WORKER_TTL_S)
            pipeline.execute()

    def _end(self, step: str, job: RqJob, execution: Execution | None, pipeline: Pipeline) -> None:
        job.ended_at = now() if step in ("complete", "fail", "end without a start") else None
        run: dict[str, Any] = {
            "worker_name": WORKER,
            "execution_id": execution and execution.id,
            "execution_started_at": execution and execution.created_at,
            "execution_ended_at": execution and job.ended_at,
        }
        match step:
            case "complete" | "end without a start":
                job._result = RESULT.model_dump()
                job._handle_success(keys.FINISHED_JOB_TTL_S, pipeline, **run)
                job.cleanup(keys.FINISHED_JOB_TTL_S, pipeline, remove_from_queue=False)
                self._worker.increment_successful_job_count(pipeline)
            case "fail":
                failure = describe(CorruptImage())
                job.set_status(RqStatus.FAILED, pipeline)
                job._handle_failure(f"{failure.code}: {failure.detail}", pipeline, **run)
                self._worker.increment_failed_job_count(pipeline)
            case "retry" | "abandon":
                job.retry(self._queue, pipeline)
            case "give back":
                job.set_status(RqStatus.QUEUED, pipeline)
                self._queue.push_job_id(job.id, pipeline, at_front=True)


def dump(model: Any) -> str:
    return str(model.model_dump_json())


def submit(redis_url: str) -> None:
    async def enqueue() -> None:
        async with connect(redis_url) as client:
            record = JobRecord(status=JobStatus.PENDING, image_hash="1" * 64)
            await DirectQueue(client, "m").enqueue(NewJob(UUID(JOB_ID), b"image", record, request_id="r"))

    asyncio.run(enqueue())


def snapshot(redis: Redis) -> dict[str, Any]:
    """Return every key of RQ with its value and TTL; times and IDs of executions are replaced by words."""
    found: dict[str, Any] = {}
    now_s = time.time()
    for key in sorted(redis.scan_iter("rq:*")):
        match redis.type(key):
            case b"hash":
                value: Any = redis.hgetall(key)
            case b"list":
                value = redis.lrange(key, 0, -1)
            case b"set":
                value = sorted(redis.smembers(key))
            case b"zset":
                members = cast(list[tuple[bytes, float]], redis.zrange(key, 0, -1, withscores=True))
                value = [(member, round((score - now_s) / 5)) for member, score in members]
            case _:
                value = [fields for _, fields in cast(list[Any], redis.xrange(key))]
        found[plain(key, now_s)] = (plain(value, now_s), round(redis.ttl(key) / 5))
    return found


def plain(value: Any, now_s: float) -> Any:
    if isinstance(value, dict):
        if returned := value.get(b"return_value"):
            value = value | {b"return_value": tuple(json.loads(b64decode(returned)).items())}
        if compressed := value.get(b"data"):  # RQ compresses it again, in another window
            value = value | {b"data": zlib.decompress(compressed)}
        return {plain(name, now_s): plain(entry, now_s) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, now_s) for entry in value]
    if not isinstance(value, bytes):
        return value
    text = re.sub(r"\b[0-9a-f]{32}\b", "EXECUTION", value.decode("latin-1"))
    with suppress(ValueError):
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        return "ISO TIME" if abs(moment.timestamp() - now_s) < 60 else text
    with suppress(ValueError):
        return "SECONDS" if abs(float(text) - now_s) < 60 else text
    return text


@pytest.mark.parametrize("step", STEPS)
def test_step_leaves_what_rqs_own_classes_leave(redis: Redis, redis_url: str, step: str) -> None:
    left = []
    for make in list[Callable[[Redis], ByRq | ByOurScript]]([ByRq, ByOurScript]):
        redis.flushall()
        submit(redis_url)
        make(redis).take(step)
        left.append(snapshot(redis))

    by_rq, by_us = left
    assert by_us == by_rq
