"""A Redis client to which something happens right before it writes, or before it learns that it has written."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError


class InterruptedRedis(Redis):
    """Interrupts one transaction, the next."""

    before_write: Callable[[], object] | None = None
    """Called once, as if by another process, right before the transaction is sent."""
    loses_answer = False
    """Whether the transaction is carried out, and its answer lost."""

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipeline = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.interrupted, pipeline.is_transaction = self, transaction
        return pipeline


class _Pipeline(Pipeline):
    interrupted: InterruptedRedis
    is_transaction: bool

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        client = self.interrupted
        if not self.is_transaction:
            return super().execute(raise_on_error)
        if hook := client.before_write:
            client.before_write = None
            with ThreadPoolExecutor(1) as thread:
                thread.submit(hook).result()
        answers = super().execute(raise_on_error)
        if client.loses_answer:
            client.loses_answer = False
            raise RedisConnectionError("The answer is lost.")
        return answers
