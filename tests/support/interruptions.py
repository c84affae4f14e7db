"""A Redis client that is interrupted right before it writes, or before it gets the answer to a write."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError


class InterruptedRedis(Redis):
    """Interrupts the next pipeline only that is a transaction or runs a script."""

    before_write: Callable[[], object] | None = None
    """Called once, right before the pipeline is sent, to do what another process would do."""
    loses_answer = False
    """Whether the pipeline is executed and its answer is lost."""

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipeline = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.interrupted, pipeline.is_transaction = self, transaction
        return pipeline


class _Pipeline(Pipeline):
    interrupted: InterruptedRedis
    is_transaction: bool

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        client = self.interrupted
        if not self.is_transaction and not any(command[0] == "EVAL" for command, _ in self.command_stack):
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
