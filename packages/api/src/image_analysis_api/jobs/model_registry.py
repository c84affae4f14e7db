"""The models that workers have announced: which there are, how they are, who serves them and how much waits."""

from collections.abc import Sequence

from redis.asyncio import Redis

from image_analysis_api.jobs.queue import QueueOf
from image_analysis_api.responses import ModelDetails
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import ModelNotFound, UnreadableRecord
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.records import read_json


class ModelRegistry:
    """Reads what workers write with every heartbeat; a model is known for a day after its last one."""

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
            ModelNotFound: it is not known; the message names those that are.
        """
        known, now_s = await self._known()
        if model in known and (found := await self._describe([model], now_s)):
            return found[0]
        raise _not_found(known)

    async def check(self, model: str) -> None:
        """Check that a model can be asked for: it is known, or the default, whose worker may come yet.

        Raises:
            ModelNotFound: neither.
        """
        if model == self._default_model:
            return
        known, _ = await self._known()
        if model not in known:
            raise _not_found(sorted({*known, self._default_model}))

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
                said = read_json(ModelAnnouncement, announced or b"")
            except UnreadableRecord:
                continue  # It has just expired, or a worker of another release wrote it.
            found.append(
                ModelDetails(
                    id=model,
                    is_default=model == self._default_model,
                    revision=said.model.revision,
                    labels_count=len(said.labels),
                    accuracy=said.accuracy,
                    backend=said.backend,
                    device=said.device,
                    precision=said.dtype,
                    max_batch_size=said.max_batch_size,
                    inference_ms=said.inference_ms,
                    workers=workers,
                    queue_depth=depth,
                    labels=said.labels,
                )
            )
        return found


def _not_found(known: Sequence[str]) -> ModelNotFound:
    return ModelNotFound(known=", ".join(known) or "none yet")
