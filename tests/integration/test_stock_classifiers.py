"""RQ's own workers answer by a classifier as ours do."""

from dataclasses import replace

import numpy as np
import pytest
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.classifiers import ClassifierRef
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.fit import train
from image_analysis_worker.rq.task import analyze_image, load_model
from support.classifiers import FOREVER_S, make_classifier, store
from support.replies import read_record
from support.samples import CHELSEA

LABELS = ["cat"] * 8 + ["dog"] * 8
JOB_ID = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("version", ["0123456789abcdef", "older"])
def test_answer_of_a_newer_classifier_is_not_cached_as_that_of_the_older(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    image, model = CHELSEA.read_bytes(), load_model().ref
    vectors = np.random.default_rng(0).normal(size=(16, 192))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    head = train(vectors.astype(np.float32), LABELS, until_s=FOREVER_S).head
    known = replace(make_classifier(model=model), head=head, version="0123456789abcdef")
    store(redis, known)
    record = JobRecord(
        status=JobStatus.PENDING,
        image_hash=image_digest(image),
        classifier=ClassifierRef(name="pets", version=version),
    )
    redis.hset(keys.job(JOB_ID), mapping=record.to_hash())
    redis.expire(keys.job(JOB_ID), 60)
    redis.set(keys.image(JOB_ID), image, ex=60)

    analyze_image(job_id=JOB_ID)

    result = read_record(redis.hgetall(keys.job(JOB_ID))).result
    assert result is not None
    assert {prediction.label for prediction in result.predictions} == {"cat", "dog", "none of these"}
    assert redis.exists(keys.result(record.image_hash)) == (version == known.version)
    redis.delete(keys.classifier("", "pets"), keys.classifiers_of(""))
