"""The embeddings of images in the cache, on the unit tests' fake Redis and on a real one."""

from typing import Any, cast
from uuid import uuid4

import pytest
from fakeredis import FakeRedis
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.models import JobStatus, Question
from image_analysis_common.records import JobRecord
from image_analysis_common.scripts.jobs import find_result
from image_analysis_common.scripts.runs import RESULTS_OF_IMAGE, cancel
from image_analysis_worker.jobs.batching import Embedding
from image_analysis_worker.jobs.records import Records
from support.replies import decoded, raw, read_record
from support.steps import RESULT

IMAGE_HASH = "1" * 64
NEW, CACHED = (Embedding(b"\0\1\2\3", is_cached=is_cached) for is_cached in (False, True))
FIELD = RESULT.model.cache_field


class Stage:
    """One Redis, fake or real, in which jobs end as a worker ends them."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def add(self, label: str, **fields: Any) -> str:
        job_id, question = str(uuid4()), Question(labels=(label,))
        record = JobRecord(status=JobStatus.PENDING, image_hash=IMAGE_HASH, question=question, **fields)
        self.redis.hset(keys.job(job_id), mapping=record.to_hash())
        self.redis.expire(keys.job(job_id), 60)
        return job_id

    def complete(self, job_id: str, embedding: Embedding | None = None, *, cache_ttl_s: int = 60) -> None:
        records = Records("m", cache_ttl_s=cache_ttl_s)
        with self.redis.pipeline() as pipeline:
            records.write(pipeline, [records.complete(job_id, self.record(job_id), RESULT, 12.5, embedding=embedding)])
            pipeline.execute()

    def delete(self, job_id: str) -> None:
        call = cancel(job_id, None)
        assert self.redis.eval(call.script.text, *call.words) == b"FORGOTTEN"

    def record(self, job_id: str) -> JobRecord:
        return read_record(self.redis.hgetall(keys.job(job_id)))

    @property
    def embeddings(self) -> dict[str, bytes]:
        found = self.redis.hgetall(keys.embedding(IMAGE_HASH))
        return {decoded(field): raw(value) for field, value in found.items()}

    @property
    def results(self) -> set[str]:
        return {decoded(field) for field in self.redis.hkeys(keys.result(IMAGE_HASH))}


@pytest.fixture(params=["fake", "real"])
def stage(request: pytest.FixtureRequest, redis: Redis) -> Stage:
    return Stage(FakeRedis() if request.param == "fake" else redis)


def test_embedding_is_kept_with_the_result_and_expires_like_it(stage: Stage) -> None:
    job_id = stage.add("cat")

    stage.complete(job_id, NEW)

    assert stage.embeddings == {FIELD: NEW.values}
    assert stage.redis.ttl(keys.embedding(IMAGE_HASH)) == stage.redis.ttl(keys.result(IMAGE_HASH)) == 60
    assert not stage.record(job_id).cached


def test_answer_from_a_cached_embedding_says_so_and_keeps_the_embedding_as_long_as_itself(stage: Stage) -> None:
    stage.complete(stage.add("cat"), NEW)
    stage.redis.expire(keys.embedding(IMAGE_HASH), 5)
    second = stage.add("dog")

    stage.complete(second, CACHED)

    assert stage.record(second).cached
    assert stage.embeddings == {FIELD: NEW.values}
    assert stage.redis.ttl(keys.embedding(IMAGE_HASH)) == 60


def test_follower_of_an_answer_from_a_cached_embedding_says_the_same(stage: Stage) -> None:
    leader, follower = stage.add("cat"), stage.add("cat")
    stage.redis.sadd(keys.followers(leader), keys.job(follower))

    stage.complete(leader, CACHED)

    assert stage.record(follower) == stage.record(leader)
    assert stage.record(follower).cached


@pytest.mark.parametrize("embedding", [NEW, CACHED])
def test_embedding_of_a_cancelled_job_is_not_kept(stage: Stage, embedding: Embedding) -> None:
    job_id = stage.add("cat")
    stage.redis.hset(keys.job(job_id), "cancelled", "1")

    stage.complete(job_id, embedding)

    assert stage.record(job_id).status is JobStatus.CANCELLED
    assert stage.embeddings == {}


def test_embedding_that_was_deleted_meanwhile_does_not_come_back(stage: Stage) -> None:
    stage.complete(stage.add("dog"), CACHED)

    assert stage.embeddings == {}


def test_without_a_cache_no_embedding_is_kept(stage: Stage) -> None:
    stage.complete(stage.add("cat"), NEW, cache_ttl_s=0)

    assert (stage.embeddings, stage.results) == ({}, set())


def test_embedding_is_deleted_with_the_last_answer_about_its_image(stage: Stage) -> None:
    first, second = stage.add("cat"), stage.add("dog")
    stage.complete(first, NEW)
    stage.complete(second, CACHED)

    stage.delete(first)
    assert stage.embeddings == {FIELD: NEW.values}

    stage.delete(second)
    assert (stage.embeddings, stage.results) == ({}, set())


def test_image_with_many_questions_keeps_a_bounded_number_of_answers(stage: Stage) -> None:
    plain = "other@1#1+100"
    stage.redis.hset(keys.result(IMAGE_HASH), plain, "{}")
    for number in range(RESULTS_OF_IMAGE + 5):
        job_id = stage.add(f"label {number}", top_k=100 if number % 2 else None)
        stage.complete(job_id)

        newest, _ = stage.record(job_id).cache_fields(FIELD)
        assert {newest, plain} <= stage.results

    assert len(stage.results) == RESULTS_OF_IMAGE


def test_lookup_reads_only_the_results_that_may_answer_the_job(stage: Stage) -> None:
    plain, other = "m@1#1", "m@1#1+100"
    stage.redis.hset(keys.result(IMAGE_HASH), mapping={plain: "1", other: "2"})
    asked = [stage.add("cat"), stage.add("cat", top_k=100), stage.add("dog")]
    for job_id in asked:
        stage.complete(job_id)

    def look_up(variant: str) -> set[str]:
        call = find_result("m", IMAGE_HASH, variant)
        _, found, _ = cast(list[list[bytes]], stage.redis.eval(call.script.text, *call.words))
        return {field.decode() for field in found[::2]}

    assert look_up("") == {plain, other}
    for job_id in asked[:2]:
        assert look_up(stage.record(job_id).variant) == {
            FIELD + stage.record(job_id).variant + end for end in ("", "+100")
        }
    assert look_up(stage.record(asked[2]).variant) == {FIELD + stage.record(asked[2]).variant}
