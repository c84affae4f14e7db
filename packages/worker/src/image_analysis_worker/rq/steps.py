"""What RQ records at each step of a job, made by RQ's own code; the script that takes the step writes it."""

from datetime import datetime
from typing import Any

from redis.client import Pipeline
from rq.executions import Execution
from rq.job import Job as RqJob
from rq.job import JobStatus as RqStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import BaseWorker

from image_analysis_common import keys
from image_analysis_common.models import AnalysisResult, JobFailure
from image_analysis_common.scripts.runs import Command, RqStep


class RqSteps:
    """Makes the `RqStep`s of one worker's jobs.

    A popped job belongs to this worker while it is in the intermediate list, a running one while its execution is
    registered. Other workers remove both when they consider this worker dead.
    """

    def __init__(self, queue: Queue, worker: BaseWorker) -> None:
        self._queue = queue
        self._worker = worker
        # RQ builds a new registry object, in 30 microseconds, at each access.
        self.started_key = queue.started_job_registry.key
        self._canceled_key = queue.canceled_job_registry.key

    def start(self, job: RqJob) -> tuple[Execution, RqStep]:
        """Start a popped job."""
        pipeline = self._make_recorder()
        execution = Execution.create(job, keys.WORKER_TTL_S, pipeline, worker_name=self._worker.name)
        job.prepare_for_execution(self._worker.name, pipeline)
        pipeline.expire(job.key, keys.UNENDED_JOB_TTL_S)
        return execution, self._step(job, self._popped(job), pipeline)

    def complete(self, job: RqJob, execution: Execution | None, result: AnalysisResult) -> RqStep:
        """End a job with a result; without an `execution`, it was popped but not started."""
        pipeline = self._make_recorder()
        job.ended_at = now()
        job._result = result.model_dump()
        job._handle_success(keys.FINISHED_JOB_TTL_S, pipeline, **self._describe_run(execution, job.ended_at))
        job.cleanup(keys.FINISHED_JOB_TTL_S, pipeline, remove_from_queue=False)
        self._worker.increment_successful_job_count(pipeline)
        return self._end(job, execution, pipeline)

    def fail(self, job: RqJob, execution: Execution | None, failure: JobFailure) -> RqStep:
        """End a job with an error; without an `execution`, it was popped but not started."""
        pipeline = self._make_recorder()
        job.ended_at = now()
        job.set_status(RqStatus.FAILED, pipeline)
        job._handle_failure(
            f"{failure.code}: {failure.detail}", pipeline, **self._describe_run(execution, job.ended_at)
        )
        self._worker.increment_failed_job_count(pipeline)
        return self._end(job, execution, pipeline)

    def retry(self, job: RqJob, execution: Execution, attempts_left: int) -> RqStep:
        """Requeue a running job; the attempt is used up."""
        pipeline = self._make_recorder()
        job.retries_left = attempts_left
        job.retry(self._queue, pipeline)
        return self._end(job, execution, pipeline)

    def abandon(self, job: RqJob, execution: str) -> RqStep:
        """Requeue a job whose `execution`, a member of RQ's registry, has expired; the attempt is used up."""
        pipeline = self._make_recorder()
        # If no attempt is left, RQ would fail the job without writing our record. The next worker does both.
        job.retries_left = max(job.retries_left or 0, 1)
        job.retry(self._queue, pipeline)
        return self._step(job, ("ZREM", self.started_key, execution), pipeline)

    def give_back(self, job: RqJob, execution: Execution) -> RqStep:
        """Return a running job to the front of the queue; no attempt is used up."""
        pipeline = self._make_recorder()
        job.set_status(RqStatus.QUEUED, pipeline)
        self._queue.push_job_id(job.id, pipeline, at_front=True)
        return self._end(job, execution, pipeline)

    def put_back(self, job: RqJob) -> RqStep:
        """Return a popped job to the front of the queue."""
        pipeline = self._make_recorder()
        self._queue.push_job_id(job.id, pipeline, at_front=True)
        return self._step(job, self._popped(job), pipeline)

    def _make_recorder(self) -> Pipeline:
        """Make a pipeline that is never sent: the commands that RQ's code puts into it go to the script."""
        return self._worker.connection.pipeline()

    def _popped(self, job: RqJob) -> Command:
        return "LREM", self._queue.intermediate_queue_key, 1, job.id

    def _describe_run(self, execution: Execution | None, ended_at: datetime) -> dict[str, Any]:
        return {
            "worker_name": self._worker.name,
            "execution_id": execution.id if execution else None,
            "execution_started_at": execution.created_at if execution else None,
            "execution_ended_at": ended_at,
        }

    def _end(self, job: RqJob, execution: Execution | None, pipeline: Pipeline) -> RqStep:
        if execution is None:
            return self._step(job, self._popped(job), pipeline)
        claim = ("ZSCORE", self.started_key, execution.composite_key)
        return self._step(job, claim, pipeline, execution.id)

    def _step(self, job: RqJob, claim: Command, pipeline: Pipeline, execution_id: str = "") -> RqStep:
        commands = [command for command, _ in pipeline.command_stack]
        return RqStep(job.key, self._canceled_key, claim, commands, execution_id)
