"""The names of RQ's keys in our scripts are those that RQ uses."""

import pytest
from redis import Redis
from rq import Queue
from rq.executions import Execution, ExecutionRegistry
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.results import Result
from rq.suspension import WORKERS_SUSPENDED
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from image_analysis_common import rq_keys

QUEUE = Queue("analysis-pets", connection=Redis())  # never connects


@pytest.mark.parametrize(
    ("ours", "rqs"),
    [
        (rq_keys.JOB + "1", Job.key_for("1")),
        (rq_keys.RESULTS + "1", Result.get_key("1")),
        (rq_keys.QUEUES, Queue.redis_queues_keys),
        (rq_keys.QUEUE + QUEUE.name, QUEUE.key),
        (QUEUE.key + rq_keys.INTERMEDIATE, QUEUE.intermediate_queue_key),
        (
            QUEUE.intermediate_queue_key + rq_keys.FIRST_SEEN + "1",
            IntermediateQueue(QUEUE.key, QUEUE.connection).get_first_seen_key("1"),
        ),
        (rq_keys.STARTED + QUEUE.name, QUEUE.started_job_registry.key),
        (rq_keys.FINISHED + QUEUE.name, QUEUE.finished_job_registry.key),
        (rq_keys.FAILED + QUEUE.name, QUEUE.failed_job_registry.key),
        (rq_keys.CANCELED + QUEUE.name, QUEUE.canceled_job_registry.key),
        (rq_keys.SCHEDULED + QUEUE.name, QUEUE.scheduled_job_registry.key),
        (rq_keys.DEFERRED + QUEUE.name, QUEUE.deferred_job_registry.key),
        (rq_keys.READY + QUEUE.name, QUEUE.ready_job_registry.key),
        (rq_keys.EXECUTION + "1:2", Execution("2", "1", QUEUE.connection).key),
        (rq_keys.EXECUTIONS + "1", ExecutionRegistry("1", QUEUE.connection).key),
        (
            "rq:worker:w" + rq_keys.EXECUTIONS_OF_WORKER,
            Execution("2", "1", QUEUE.connection, "w").worker_executions_key,
        ),
        (rq_keys.WORKERS, REDIS_WORKER_KEYS),
        (rq_keys.WORKERS_OF + QUEUE.name, WORKERS_BY_QUEUE_KEY % QUEUE.name),
        (rq_keys.SUSPENDED, WORKERS_SUSPENDED),
    ],
)
def test_key_has_the_name_that_rq_gives_it(ours: str, rqs: str) -> None:
    assert ours == rqs
