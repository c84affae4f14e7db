"""A training that names one image many times costs no more than one that names it once."""

import asyncio
from uuid import uuid4

from redis import Redis

from image_analysis_api.intake.examples import ExampleSource, LabeledImage
from image_analysis_api.jobs.example_records import find_examples
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.classifiers import Example
from image_analysis_common.models import ImageEmbedding, JobStatus, ModelAnnouncement
from image_analysis_common.records import JobRecord, read_json
from support.announcements import MODEL, announce, make_result
from support.classifiers import make_vectors
from support.replies import raw

NAMES = 6000


def test_job_named_thousands_of_times_is_read_once(redis: Redis, redis_url: str) -> None:
    embedding = ImageEmbedding.pack(make_vectors(["cat"])[0].tobytes())
    result = make_result().model_copy(update={"embedding": embedding})
    record = JobRecord(status=JobStatus.COMPLETED, image_hash="a" * 64, owner="ann", result=result)
    job_id = uuid4()
    redis.hset(keys.job(str(job_id)), mapping=record.to_hash())
    redis.expire(keys.job(str(job_id)), 60)
    labels = ["cat"] * (NAMES - 1) + ["dog"]
    images = [LabeledImage(label, source=ExampleSource(label=label, job_id=job_id)) for label in labels]

    async def find() -> list[Example | None]:
        async with connect(redis_url) as client:
            await announce(client)
            announced = read_json(ModelAnnouncement, raw(await client.get(keys.announcement(MODEL.id))))
            return await find_examples(client, images, announced, "ann", {})

    redis.config_resetstat()
    found = [example for example in asyncio.run(find()) if example]

    assert redis.info("commandstats")["cmdstat_hgetall"]["calls"] == 1
    assert [example.label for example in found] == labels
    assert [example.embedding for example in found if example.embedding] == [embedding.values]
    assert found[-1].embedding
