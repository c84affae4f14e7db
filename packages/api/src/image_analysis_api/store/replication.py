"""The promise of `MIN_REPLICAS_ACK`: what was written is confirmed only once replicas have it."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import StoreUnavailable

WAIT_MS = 500
"""How long replicas may take; shorter than the client's timeout."""


class Replication:
    """Confirms writes; with `min_replicas` 0, without asking Redis."""

    def __init__(self, redis: Redis, min_replicas: int) -> None:
        self._redis = redis
        self._min_replicas = min_replicas

    async def confirm(self, *written: str) -> None:
        """Return once `min_replicas` replicas have these keys, whichever connection wrote them.

        Raises:
            StoreUnavailable: too few replicas have them in time, or the primary has lost them in a failover.
        """
        if not self._min_replicas:
            return
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            # WAIT counts the writes of its own connection. Replicas get all writes in order, so one more is enough.
            pipeline.set(keys.PROBE, "", ex=keys.WORKER_TTL_S)
            pipeline.exists(*written)
            pipeline.wait(self._min_replicas, WAIT_MS)
            _, found, replicas = await pipeline.execute()
        if found < len(written) or replicas < self._min_replicas:
            # Sentinel may have chosen another primary meanwhile: a new connection asks for it.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable from RedisError(f"{replicas} replicas have {found} of {len(written)} new keys")
