"""A training that names images costs what they need: each is read once, and too many of them are refused."""

import asyncio
from uuid import UUID, uuid4

import pytest
from redis import Redis

from image_analysis_api.intake.examples import ExampleSource, LabeledImage
from image_analysis_api.jobs.example_records import Embeddings, find_examples
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.classifiers import Example
from image_analysis_common.job_errors import TooManyClassifiers
from image_analysis_common.models import ImageEmbedding, JobStatus, ModelAnnouncement
from image_analysis_common.records import JobRecord, read_json
from support.announcements import MODEL, announce, make_result
from support.classifiers import make_vectors
from support.replies import raw

NAMES = 6000
VECTOR = make_vectors(["cat"])[0].tobytes()


def add_job(redis: Redis, image_hash: str) -> UUID:
    """Add a job whose result has an embedding."""
    result = make_result().model_copy(update={"embedding": ImageEmbedding.pack(VECTOR)})
    record = JobRecord(status=JobStatus.COMPLETED, image_hash=image_hash, owner="ann", result=result)
    job_id = uuid4()
    redis.hset(keys.job(str(job_id)), mapping=record.to_hash())
    redis.expire(keys.job(str(job_id)), 60)
    return job_id


def find(redis_url: str, names: list[tuple[str, UUID]], max_bytes: int = 64_000_000) -> list[Example]:
    """Find the examples with these labels and jobs."""
    images = [LabeledImage(label, source=ExampleSource(label=label, job_id=job_id)) for label, job_id in names]

    async def find() -> list[Example | None]:
        async with connect(redis_url) as client:
            await announce(client)
            announced = read_json(ModelAnnouncement, raw(await client.get(keys.announcement(MODEL.id))))
            return await find_examples(client, images, announced, "ann", {}, Embeddings(max_bytes, lambda _: None))

    return [example for example in asyncio.run(find()) if example]


def test_job_named_thousands_of_times_is_read_once(redis: Redis, redis_url: str) -> None:
    job_id, labels = add_job(redis, "a" * 64), ["cat"] * (NAMES - 1) + ["dog"]
    redis.config_resetstat()

    found = find(redis_url, [(label, job_id) for label in labels])

    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
    assert "cmdstat_hget" not in redis.info("commandstats")  # the job gives the embedding, and the cache is not asked
    assert [example.label for example in found] == labels
    assert [example.embedding for example in found if example.embedding] == [ImageEmbedding.pack(VECTOR).values]
    assert found[-1].embedding


def test_embeddings_that_fit_no_classifier_are_refused_while_they_are_read(redis: Redis, redis_url: str) -> None:
    """In the queue they could take as much room as all images, and a worker would refuse them."""
    names = [("cat", add_job(redis, f"{number:064}")) for number in (1, 2, 3, 3)]

    fitting = find(redis_url, names, max_bytes=3 * len(VECTOR))
    with pytest.raises(TooManyClassifiers):
        find(redis_url, names, max_bytes=3 * len(VECTOR) - 1)

    assert len(fitting) == 4
