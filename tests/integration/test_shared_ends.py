"""Jobs with the same image share one run: what its end means for each of them."""

import pytest
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.job_errors import CorruptImage, JobTimeout
from image_analysis_worker.rq.batch_worker import BatchWorker
from support.direct import Client, read, registries, take
from support.interruptions import InterruptedRedis
from support.replies import read_record
from support.steps import RESULT


def code(redis: Redis, job_id: str) -> str | None:
    error = read_record(redis.hgetall(keys.job(job_id))).error
    return error.code if error else None


def use_up_attempts(redis: Redis, job_id: str) -> None:
    redis.hset(f"rq:job:{job_id}", "retries_left", 0)


def lose_image(redis: Redis, job_id: str) -> None:
    redis.delete(keys.image(job_id))


HOPELESS = {"worker_lost": use_up_attempts, "image_expired": lose_image}


@pytest.mark.parametrize(
    "error", [CorruptImage("It is damaged."), JobTimeout("It took too long."), RuntimeError("a fault")]
)
def test_failure_of_the_run_is_that_of_all_who_wait_for_it(
    redis: Redis, batch_worker: BatchWorker, client: Client, error: Exception
) -> None:
    jobs = [client.submit(), client.submit()]
    [job] = take(batch_worker)
    jobs.append(client.submit())
    job.attempts_left = 1
    job.end(error)

    batch_worker.finish([job])

    assert [code(redis, job_id) for job_id in jobs] == [getattr(error, "code", "internal_error")] * 3


@pytest.mark.parametrize("expected", HOPELESS)
def test_job_that_cannot_run_any_more_fails_with_its_followers(
    redis: Redis, batch_worker: BatchWorker, client: Client, expected: str
) -> None:
    jobs = [client.submit(), client.submit()]
    HOPELESS[expected](redis, jobs[0])

    assert take(batch_worker) == []
    assert [code(redis, job_id) for job_id in jobs] == [expected] * 2
    assert registries(redis) == {"failed": jobs[:1]}


@pytest.mark.parametrize("expected", HOPELESS)
@pytest.mark.parametrize("comes", ["before", "meanwhile"])
def test_image_whose_leader_can_only_fail_gets_a_new_run(
    redis: Redis, batch_worker: BatchWorker, connection: InterruptedRedis, client: Client, expected: str, comes: str
) -> None:
    leader, late = client.submit(), list[str]()
    HOPELESS[expected](redis, leader)

    def submit() -> None:
        late.append(client.submit())

    if comes == "before":
        submit()
    else:
        connection.before_write = submit
    assert take(batch_worker) == []
    [job] = take(batch_worker)
    job.end(RESULT)
    batch_worker.finish([job])

    assert (read(redis, leader, *late), code(redis, leader)) == (["FAILED", "COMPLETED"], expected)
    assert registries(redis) == {"failed": [leader], "finished": late}
