"""The processes of one scenario: a Redis, its workers, and a way to queue jobs as the API does."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Self
from uuid import uuid4

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from chaos.workers import Crew, Program, Worker
from image_analysis_api.jobs.queue import NewJob
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from support.direct import DirectQueue
from support.reaper import Reaper
from support.redis_server import RedisServer
from support.waiting import wait_until

FINAL = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Submitter:
    """Queues images as the API does, without HTTP; only for one thread."""

    def __init__(self, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncRedis.from_url(redis_url, protocol=2)
        self._queue = DirectQueue(self._client, BUNDLED_MODEL)

    def submit(self, images: Iterable[bytes]) -> list[str]:
        """Queue images in this order; return their jobs."""
        return self._runner.run(self._submit(images))

    async def _submit(self, images: Iterable[bytes]) -> list[str]:
        jobs = []
        for image in images:
            job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image))
            await self._queue.enqueue(NewJob(job_id, image, record, request_id="chaos"))
            jobs.append(str(job_id))
        return jobs

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class Scenario:
    """Everything that a scenario starts; all of it ends with the block."""

    def __init__(self, context: ForkServerContext, reaper: Reaper, directory: Path) -> None:
        self._context = context
        self._reaper = reaper
        self._directory = directory
        self._numbers = count()
        self._exits = ExitStack()
        self._workers: list[Worker] = []
        self.redis_server = RedisServer(directory, reaper)
        self.redis = Redis.from_url(self.redis_server.url)

    def __enter__(self) -> Self:
        self._exits.callback(self.redis_server.kill)
        self.redis_server.start()
        self._exits.callback(self.redis.close)
        self._exits.callback(self.close_workers)
        self._submitter = self.submitter()
        return self

    def __exit__(self, *_error: object) -> None:
        self._exits.close()

    def submitter(self) -> Submitter:
        submitter = Submitter(self.redis_server.url)
        self._exits.callback(submitter.close)
        return submitter

    def submit(self, images: Iterable[bytes]) -> list[str]:
        return self._submitter.submit(images)

    def start_worker(self, environment: Mapping[str, str] = {}, *, is_program: bool = False) -> Worker:
        """Start a worker that waits for `begin`. It misbehaves on marked images, unless `is_program`."""
        variables = self._variables(environment)
        worker = Worker(self._context, self._reaper, self._next_log(), variables, is_program=is_program)
        self._workers.append(worker)
        return worker

    def close_workers(self) -> None:
        """End the workers that still live."""
        while self._workers:
            self._workers.pop().close()

    def start_crew(self, size: int = 2, *, spares: int = 2, **environment: str) -> Crew:
        return Crew(lambda: self.start_worker(environment), size=size, spares=spares)

    def start_program(self, module: str, **environment: str) -> Program:
        program = Program(self._reaper, module, self._next_log(), self._variables(environment))
        self._exits.callback(program.close)
        return program

    def records(self, jobs: Iterable[str]) -> dict[str, JobRecord]:
        identifiers = list(jobs)
        with self.redis.pipeline(transaction=False) as pipeline:
            for job_id in identifiers:
                pipeline.hgetall(keys.job(job_id))
            answers = pipeline.execute()
        return {job_id: JobRecord.from_hash(fields) for job_id, fields in zip(identifiers, answers, strict=True)}

    def statuses(self, jobs: Iterable[str]) -> list[str]:
        return [record.status.value for record in self.records(jobs).values()]

    def wait_for_end(self, jobs: list[str], timeout_s: float = 60, crew: Crew | None = None) -> dict[str, JobRecord]:
        """Wait until all jobs have ended, and replace dead workers of the crew; return the records, ended or not."""

        def have_ended() -> bool:
            if crew is not None:
                crew.tend()
            return all(record.status in FINAL for record in self.records(jobs).values())

        try:
            wait_until(have_ended, "all jobs end", timeout_s)
        except AssertionError:
            return self.records(jobs)  # the test's own assertion shows what is missing
        return self.records(jobs)

    def _variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {"REDIS_URL": self.redis_server.url, "LOG_FORMAT": "json", **environment}

    def _next_log(self) -> Path:
        return self._directory / f"{next(self._numbers)}.log"
