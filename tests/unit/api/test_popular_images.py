"""What a process remembers of images that were found in the cache: a bounded number of short results."""

from typing import Any

import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.schemas import Options
from image_analysis_api.intake.submissions import Submission
from image_analysis_api.jobs.result_cache import MAX_POPULAR, MAX_RESULT_BYTES, ResultCache
from image_analysis_common.errors import ImageTooLarge, UnsupportedImage
from image_analysis_common.images import image_digest
from image_analysis_common.models import ZERO_SHOT, JobStatus, ModelRef, Question
from image_analysis_common.records import JobRecord
from support.announcements import MODEL, announce
from support.fakes import FakeFetcher

pytestmark = pytest.mark.anyio

CLIP = ModelRef(id="acme/clip", revision="r1", preprocessing="1")
CATS = Question(labels=("a cat", "a dog"))


def record_of(image_hash: str, **fields: Any) -> JobRecord:
    return JobRecord(status=JobStatus.PENDING, image_hash=image_hash, **fields)


async def make_cache(redis: FakeRedis) -> ResultCache:
    """Make a cache that has read the announcements of a model with labels, the default one, and of one without."""
    await announce(redis)
    await announce(redis, CLIP, task=ZERO_SHOT)
    cache = ResultCache(redis, MODEL.id)
    await cache.find(record_of("0" * 64))
    await cache.find(record_of("0" * 64, model=CLIP.id, question=CATS))
    return cache


async def test_oldest_image_is_forgotten_and_a_long_result_never_remembered(redis: FakeRedis) -> None:
    cache = await make_cache(redis)
    known = cache.known(record_of("0"))
    assert known
    for number in range(MAX_POPULAR + 1):
        cache.remember(record_of(str(number)), known, b"{}")
    cache.remember(record_of("long"), known, b" " * (MAX_RESULT_BYTES + 1))

    remembered = [cache.is_popular(name) for name in ("0", "1", str(MAX_POPULAR), "long")]

    assert remembered == [False, True, True, False]
    assert cache.recall(record_of("0")) is None


async def test_result_is_recalled_for_its_model_its_depth_and_its_question_alone(redis: FakeRedis) -> None:
    cache = await make_cache(redis)
    asked: dict[str, dict[str, Any]] = {
        "usual": {},
        "deep": {"top_k": 50},
        "cats": {"model": CLIP.id, "question": CATS},
        "other order": {"model": CLIP.id, "question": Question(labels=("a dog", "a cat"))},
        "other model": {"model": "another model"},
        "labels for a model with labels": {"question": CATS},
    }
    for name in ("usual", "deep", "cats"):
        record = record_of(name, **asked[name])
        known = cache.known(record)
        assert known
        cache.remember(record, known, name.encode())

    recalled = {
        name: [other for other, fields in asked.items() if cache.recall(record_of(name, **fields))]
        for name in ("usual", "deep", "cats")
    }

    assert recalled == {"usual": ["usual"], "deep": ["deep"], "cats": ["cats"]}
    found = cache.recall(record_of("cats", **asked["cats"]))
    assert found is not None
    assert found.text == b"cats"


async def test_header_is_read_unless_this_process_has_read_it_and_the_size_is_checked_in_any_case() -> None:
    def hold(size_bytes: int) -> None:
        pass

    image = b"no image"
    reader = ImageReader(
        FakeFetcher(), max_bytes=8, max_pixels=1, is_checked={image_digest(image), image_digest(b"x" * 9)}.__contains__
    )

    assert await reader.read(Submission(Options(), image=image), "", hold) == (image, image_digest(image))
    with pytest.raises(UnsupportedImage):
        await reader.read(Submission(Options(), image=b"another"), "", hold)
    with pytest.raises(ImageTooLarge):
        await reader.read(Submission(Options(), image=b"x" * 9), "", hold)
