"""What a worker would have left in Redis, for tests without one."""

from redis.asyncio import Redis

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import (
    DEEP_SUFFIX,
    TOP_K,
    AnalysisResult,
    CachedResult,
    ModelAnnouncement,
    ModelRef,
    Prediction,
)
from image_analysis_common.settings import BUNDLED_MODEL

MODEL = ModelRef(id=BUNDLED_MODEL, revision="r1", preprocessing="1")


def make_result(count: int = TOP_K, model: ModelRef = MODEL) -> AnalysisResult:
    """Make a result with the labels l0, l1, ... and the beliefs 1/2, 1/4, ..."""
    predictions = [Prediction(label=f"l{n}", confidence=0.5 ** (n + 1)) for n in range(count)]
    return AnalysisResult(label="l0", confidence=0.5, predictions=predictions, model=model)


async def announce(redis: Redis, model: ModelRef = MODEL) -> None:
    announcement = ModelAnnouncement(
        model=model, labels=["cat"], accuracy=None, device="cpu", dtype="float32", max_batch_size=1, inference_ms=1
    )
    await redis.set(keys.announcement(model.id), announcement.model_dump_json(), ex=60)


async def cache_result(redis: Redis, image: bytes, result: AnalysisResult) -> None:
    """Put a result into the cache; one with more predictions than usual where only deep requests leave theirs."""
    field = result.model.cache_field + (DEEP_SUFFIX if len(result.predictions) > TOP_K else "")
    cached = CachedResult(result=result, processing_time_ms=12.5)
    await redis.hset(keys.result(image_digest(image)), field, cached.model_dump_json())
    await redis.expire(keys.result(image_digest(image)), 60)
