"""A job's record only ever moves forward."""

import pytest
from fakeredis import FakeRedis

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import AnalysisResult, CachedResult, JobFailure, JobStatus, ModelRef, Prediction
from image_analysis_common.records import JobRecord
from image_analysis_worker.records import Records
from samples import make_png

JOB_ID = "5f0c1a52-7a3e-4b5c-9d3e-2f1b0a9c8d7e"
IMAGE = make_png()
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
    pending = JobRecord(status=JobStatus.PENDING, image_hash=image_digest(IMAGE))
    redis.hset(keys.job(JOB_ID), mapping=pending.to_hash())
    redis.expire(keys.job(JOB_ID), keys.WAITING_JOB_TTL_S)
    redis.set(keys.image(JOB_ID), IMAGE)
    return redis


@pytest.fixture
def records(redis: FakeRedis) -> Records:
    return Records(redis, cache_ttl_s=60)


def read(redis: FakeRedis) -> JobRecord:
    return JobRecord.from_hash(redis.hgetall(keys.job(JOB_ID)))


def test_begun_job_is_processing_and_keeps_its_image(redis: FakeRedis, records: Records) -> None:
    record, image = records.begin(JOB_ID)

    assert record == read(redis) == JobRecord(status=JobStatus.PROCESSING, image_hash=image_digest(IMAGE))
    assert image == IMAGE


def test_completed_job_leaves_record_and_cache_and_no_image(redis: FakeRedis, records: Records) -> None:
    records.complete(JOB_ID, image_digest(IMAGE), RESULT, 12.5)

    cached = redis.hget(keys.result(image_digest(IMAGE)), "m@r#1")
    assert CachedResult.model_validate_json(cached) == CachedResult(result=RESULT, processing_time_ms=12.5)
    assert read(redis) == JobRecord(
        status=JobStatus.COMPLETED, image_hash=image_digest(IMAGE), result=RESULT, processing_time_ms=12.5
    )
    assert (redis.ttl(keys.job(JOB_ID)), redis.ttl(keys.result(image_digest(IMAGE)))) == (3600, 60)
    assert not redis.exists(keys.image(JOB_ID))


def test_cache_can_be_switched_off(redis: FakeRedis) -> None:
    Records(redis, cache_ttl_s=0).complete(JOB_ID, image_digest(IMAGE), RESULT, 12.5)

    assert read(redis).status is JobStatus.COMPLETED
    assert not redis.exists(keys.result(image_digest(IMAGE)))


def test_failed_job_leaves_its_error_and_no_image(redis: FakeRedis, records: Records) -> None:
    records.fail(JOB_ID, FAILURE)

    assert read(redis) == JobRecord(status=JobStatus.FAILED, image_hash=image_digest(IMAGE), error=FAILURE)
    assert redis.ttl(keys.job(JOB_ID)) == keys.ENDED_JOB_TTL_S
    assert not redis.exists(keys.image(JOB_ID))


def test_ended_job_never_changes_again(redis: FakeRedis, records: Records) -> None:
    records.complete(JOB_ID, image_digest(IMAGE), RESULT, 12.5)
    ended = read(redis)

    records.begin(JOB_ID)
    records.retry(JOB_ID)
    records.fail(JOB_ID, FAILURE)
    records.complete(JOB_ID, image_digest(IMAGE), RESULT.model_copy(update={"label": "dog"}), 1)

    assert read(redis) == ended


def test_cancelled_job_stays_cancelled(redis: FakeRedis, records: Records) -> None:
    redis.hset(keys.job(JOB_ID), "status", JobStatus.CANCELLED)

    records.complete(JOB_ID, image_digest(IMAGE), RESULT, 12.5)

    assert read(redis).status is JobStatus.CANCELLED


def test_retried_job_is_pending_again(redis: FakeRedis, records: Records) -> None:
    records.begin(JOB_ID)
    records.retry(JOB_ID)

    assert read(redis).status is JobStatus.PENDING


def test_expired_job_is_not_brought_back(redis: FakeRedis, records: Records) -> None:
    redis.delete(keys.job(JOB_ID), keys.image(JOB_ID))

    assert records.begin(JOB_ID) == (None, None)
    records.fail(JOB_ID, FAILURE)
    assert not redis.exists(keys.job(JOB_ID))
