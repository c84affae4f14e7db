"""A job's record only moves forward."""

from collections.abc import Callable

import pytest
from fakeredis import FakeRedis

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import AnalysisResult, CachedResult, JobFailure, JobStatus, ModelRef, Prediction
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.runs import Step
from image_analysis_worker.jobs.records import Records
from support.replies import raw, read_record
from support.samples import make_png

JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"
IMAGE = make_png()
PENDING = JobRecord(status=JobStatus.PENDING, image_hash=image_digest(IMAGE))
RESULT = AnalysisResult(
    label="cat",
    confidence=0.5,
    predictions=[Prediction(label="cat", confidence=0.5)],
    model=ModelRef(id="m", revision="r", preprocessing="1"),
)
FAILURE = JobFailure(code="corrupt_image", detail="It is damaged.")


@pytest.fixture
def redis() -> FakeRedis:
    redis = FakeRedis()
    redis.hset(keys.job(JOB_ID), mapping=PENDING.to_hash())
    redis.expire(keys.job(JOB_ID), keys.WAITING_JOB_TTL_S)
    redis.set(keys.image(JOB_ID), IMAGE)
    return redis


class Steps:
    """Writes each step in a separate transaction."""

    def __init__(self, redis: FakeRedis, cache_ttl_s: int = 60) -> None:
        self._redis = redis
        self._records = Records("m", cache_ttl_s=cache_ttl_s)

    def _run(self, step: Callable[..., Step], *arguments: object) -> None:
        with self._redis.pipeline() as pipeline:
            self._records.write(pipeline, [step(JOB_ID, *arguments)])
            pipeline.execute()

    def begin(self) -> None:
        self._run(self._records.begin, PENDING)

    def retry(self) -> None:
        self._run(self._records.retry)

    def complete(self, result: AnalysisResult = RESULT) -> None:
        self._run(self._records.complete, PENDING, result, 12.5)

    def fail(self) -> None:
        self._run(self._records.fail, PENDING, FAILURE)


@pytest.fixture
def records(redis: FakeRedis) -> Steps:
    return Steps(redis)


def read(redis: FakeRedis) -> JobRecord:
    return read_record(redis.hgetall(keys.job(JOB_ID)))


def test_begun_job_is_processing_and_keeps_its_image(redis: FakeRedis, records: Steps) -> None:
    records.begin()

    assert read(redis) == JobRecord(status=JobStatus.PROCESSING, image_hash=image_digest(IMAGE))
    assert redis.get(keys.image(JOB_ID)) == IMAGE


def test_completed_job_leaves_record_and_cache_and_no_image(redis: FakeRedis, records: Steps) -> None:
    records.complete()

    cached = redis.hget(keys.result(image_digest(IMAGE)), "m@r#1")
    assert CachedResult.model_validate_json(raw(cached)) == CachedResult(result=RESULT, processing_time_ms=12.5)
    assert read(redis) == JobRecord(
        status=JobStatus.COMPLETED, image_hash=image_digest(IMAGE), result=RESULT, processing_time_ms=12.5
    )
    assert (redis.ttl(keys.job(JOB_ID)), redis.ttl(keys.result(image_digest(IMAGE)))) == (3600, 60)
    assert not redis.exists(keys.image(JOB_ID))


@pytest.mark.parametrize("end", [Steps.complete, Steps.fail])
def test_bytes_of_an_ended_jobs_image_are_no_longer_counted(
    redis: FakeRedis, records: Steps, end: Callable[[Steps], None]
) -> None:
    redis.set(keys.image_bytes("m"), len(IMAGE) + 7, ex=60)

    records.begin()
    end(records)
    end(records)

    assert redis.get(keys.image_bytes("m")) == b"7"
    assert redis.ttl(keys.image_bytes("m")) == 60


def test_cache_can_be_switched_off(redis: FakeRedis) -> None:
    Steps(redis, cache_ttl_s=0).complete()

    assert read(redis).status is JobStatus.COMPLETED
    assert not redis.exists(keys.result(image_digest(IMAGE)))


def test_failed_job_leaves_its_error_and_no_image(redis: FakeRedis, records: Steps) -> None:
    records.fail()

    assert read(redis) == JobRecord(status=JobStatus.FAILED, image_hash=image_digest(IMAGE), error=FAILURE)
    assert redis.ttl(keys.job(JOB_ID)) == keys.ENDED_JOB_TTL_S
    assert not redis.exists(keys.image(JOB_ID))


def test_ended_job_never_changes_again(redis: FakeRedis, records: Steps) -> None:
    records.complete()
    ended = read(redis)

    records.begin()
    records.retry()
    records.fail()
    records.complete(RESULT.model_copy(update={"label": "dog"}))

    assert read(redis) == ended


def test_cancelled_job_stays_cancelled(redis: FakeRedis, records: Steps) -> None:
    redis.hset(keys.job(JOB_ID), "status", JobStatus.CANCELLED)

    records.complete()

    assert read(redis).status is JobStatus.CANCELLED


def test_retried_job_is_pending_again(redis: FakeRedis, records: Steps) -> None:
    records.begin()
    records.retry()

    assert read(redis).status is JobStatus.PENDING


def test_expired_job_is_not_brought_back(redis: FakeRedis, records: Steps) -> None:
    redis.delete(keys.job(JOB_ID), keys.image(JOB_ID))

    records.begin()
    records.fail()
    assert not redis.exists(keys.job(JOB_ID))


def test_followers_take_every_step_with_their_leader(redis: FakeRedis, records: Steps) -> None:
    follower = keys.job("0a1b2c3d-0000-4000-8000-000000000000")
    redis.hset(follower, mapping=PENDING.to_hash())
    redis.sadd(keys.followers(JOB_ID), follower)
    redis.set(keys.leader("m", image_digest(IMAGE)), JOB_ID)

    records.begin()
    begun = redis.hget(follower, "status")
    records.complete()

    assert begun == b"PROCESSING"
    assert read_record(redis.hgetall(follower)) == read(redis)
    assert redis.ttl(follower) == keys.ENDED_JOB_TTL_S
    assert redis.exists(keys.followers(JOB_ID), keys.leader("m", image_digest(IMAGE))) == 0


def test_late_end_leaves_the_next_leader_alone(redis: FakeRedis, records: Steps) -> None:
    redis.set(keys.leader("m", image_digest(IMAGE)), "another")

    records.complete()

    assert redis.get(keys.leader("m", image_digest(IMAGE))) == b"another"


def test_run_that_keeps_more_predictions_has_a_leader_and_a_cache_field_of_its_own(redis: FakeRedis) -> None:
    deep, hashed = PENDING.model_copy(update={"top_k": 6}), image_digest(IMAGE)
    redis.set(keys.leader("m", hashed), JOB_ID)
    redis.set(keys.leader("m", hashed, is_deep=True), JOB_ID)

    with redis.pipeline() as pipeline:
        records = Records("m", cache_ttl_s=60)
        records.write(pipeline, [records.complete(JOB_ID, deep, RESULT, 12.5)])
        pipeline.execute()

    assert redis.hkeys(keys.result(hashed)) == [b"m@r#1+100"]
    assert redis.exists(keys.leader("m", hashed)) == 1
    assert redis.exists(keys.leader("m", hashed, is_deep=True)) == 0
