"""Writes to Redis what a worker would have written, for tests without a worker."""

from redis.asyncio import Redis

from image_analysis_common import keys, tasks
from image_analysis_common.images import image_digest
from image_analysis_common.models import (
    DEEP_SUFFIX,
    TOP_K,
    ZERO_SHOT,
    AnalysisResult,
    CachedResult,
    ModelAnnouncement,
    ModelRef,
    Prediction,
    Task,
)
from image_analysis_common.settings import BUNDLED_MODEL

MODEL = ModelRef(id=BUNDLED_MODEL, revision="r1", preprocessing="1")
QUEUE_KEY = f"rq:queue:{tasks.queue_name(MODEL.id)}"


def make_result(count: int = TOP_K, model: ModelRef = MODEL) -> AnalysisResult:
    """Make a result with the labels l0, l1, ... and the confidences 1/2, 1/4, ..."""
    predictions = [Prediction(label=f"l{n}", confidence=0.5 ** (n + 1)) for n in range(count)]
    return AnalysisResult(label="l0", confidence=0.5, predictions=predictions, model=model)


def make_announcement(
    model: ModelRef = MODEL, task: Task = "image-classification", *, embeds: bool = True, trains: bool = True
) -> ModelAnnouncement:
    return ModelAnnouncement(
        model=model,
        labels=["cat"] if task != ZERO_SHOT else [],
        accuracy=None,
        device="cpu",
        dtype="float32",
        max_batch_size=1,
        inference_ms=1,
        function_to_apply="softmax",
        task=task,
        embeds=embeds,
        trains=trains,
    )


async def announce(
    redis: Redis,
    model: ModelRef = MODEL,
    task: Task = "image-classification",
    *,
    embeds: bool = True,
    trains: bool = True,
) -> None:
    announcement = make_announcement(model, task, embeds=embeds, trains=trains)
    await redis.set(keys.announcement(model.id), announcement.model_dump_json(), ex=60)


async def serve(redis: Redis, model: ModelRef = MODEL, *, workers: int = 1, silent_s: int = 0) -> None:
    """Write what `workers` workers of a model write; the last heartbeat was `silent_s` seconds ago."""
    await announce(redis, model)
    now_s, _ = await redis.time()
    await redis.zadd(keys.MODELS, {model.id: now_s - silent_s})
    await redis.zadd(keys.workers(model.id), {f"w{n}": now_s - silent_s for n in range(workers)})


async def cache_result(redis: Redis, image: bytes, result: AnalysisResult) -> None:
    """Put a result into the cache; with more predictions than usual, into the field that only deep requests write."""
    field = result.model.cache_field + (DEEP_SUFFIX if len(result.predictions) > TOP_K else "")
    cached = CachedResult(result=result, processing_time_ms=12.5)
    await redis.hset(keys.result(image_digest(image)), field, cached.model_dump_json())
    await redis.expire(keys.result(image_digest(image)), 60)
