"""The models that workers have announced, with their live workers and queue depths."""

from collections.abc import Sequence

from redis.asyncio import Redis

from image_analysis_api.jobs.queue import QueueOf
from image_analysis_api.responses import ModelDetails
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import ModelNotFound, RequestError, UnreadableRecord
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.records import read_json


class ModelRegistry:
    """Reads what workers write with every heartbeat. A model is known for a day after its last heartbeat."""

    def __init__(self, redis: Redis, default_model: str, queue_of: QueueOf) -> None:
        self._redis = redis
        self._default_model = default_model
        self._queue_of = queue_of

    async def find_all(self) -> list[ModelDetails]:
        """Describe every known model, by ID."""
        known, now_s = await self._known()
        return await self._describe(known, now_s)

    async def find(self, model: str) -> ModelDetails:
        """Describe one model.

        Raises:
            ModelNotFound: it is not known. The message lists the known models.
        """
        known, now_s = await self._known()
        if model in known and (found := await self._describe([model], now_s)):
            return found[0]
        raise _not_found(known)

    async def check(self, model: str) -> None:
        """Check that jobs may ask for a model: it is known, or it is the default, whose first worker may start later.

        Raises:
            ModelNotFound: it is neither.
        """
        if model == self._default_model:
            return
        known, _ = await self._known()
        if model not in known:
            raise _not_found(sorted({*known, self._default_model}))

    async def find_announcement(self, model: str | None) -> ModelAnnouncement | None:
        """Return what the latest worker of a model, or of the default one, says about it; None if no worker has.

        Raises:
            ModelNotFound: the model is neither known nor the default.
            UnreadableRecord
        """
        if model is not None:
            await self.check(model)
        async with reaching_redis():
            announced = await self._redis.get(keys.announcement(model or self._default_model))
        return read_json(ModelAnnouncement, announced) if announced else None

    async def check_function(self, model: str, function: str) -> None:
        """Check that a function is the one that makes the model's confidences: the worker applies no other.

        Raises:
            RequestError: it is another function, or the model's workers have not said which one they apply.
        """
        async with reaching_redis():
            announced = await self._redis.get(keys.announcement(model))
        applied = read_json(ModelAnnouncement, announced).function_to_apply if announced else None
        if applied is None:
            raise RequestError("It is not known yet which function this model applies: leave function_to_apply out.")
        if function != applied:
            raise RequestError(f"This model applies {applied}: send it as function_to_apply, or leave that out.")

    async def _known(self) -> tuple[Sequence[str], int]:
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrange(keys.MODELS, 0, -1, withscores=True)
            (now_s, _), models = await pipeline.execute()
        oldest_s = now_s - keys.ANNOUNCEMENT_TTL_S
        return sorted(model.decode() for model, beat_s in models if beat_s > oldest_s), now_s

    async def _describe(self, models: Sequence[str], now_s: int) -> list[ModelDetails]:
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            for model in models:
                pipeline.get(keys.announcement(model))
                pipeline.zcount(keys.workers(model), now_s - keys.WORKER_TTL_S, "+inf")
                pipeline.llen(self._queue_of(model).key)
            answers = iter(await pipeline.execute())
        found = []
        for model, announced, workers, depth in zip(models, answers, answers, answers, strict=True):
            try:
                announcement = read_json(ModelAnnouncement, announced or b"")
            except UnreadableRecord:
                continue  # It has just expired, or a worker of another release wrote it.
            found.append(
                ModelDetails(
                    id=model,
                    is_default=model == self._default_model,
                    revision=announcement.model.revision,
                    task=announcement.task,
                    labels_count=len(announcement.labels),
                    accuracy=announcement.accuracy,
                    backend=announcement.backend,
                    device=announcement.device,
                    precision=announcement.dtype,
                    max_batch_size=announcement.max_batch_size,
                    inference_ms=announcement.inference_ms,
                    function_to_apply=announcement.function_to_apply,
                    embeds=announcement.embeds,
                    trains=announcement.trains,
                    workers=workers,
                    queue_depth=depth,
                    labels=announcement.labels,
                    engines=announcement.engines,
                )
            )
        return found


def _not_found(known: Sequence[str]) -> ModelNotFound:
    return ModelNotFound(known=", ".join(known) or "none yet")
