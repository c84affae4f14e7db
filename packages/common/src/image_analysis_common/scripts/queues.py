"""The scripts that handle whole queues, and those for what a worker writes about itself."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeAlias

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.scripts.source import ScriptCall, load

Command: TypeAlias = Sequence[Any]
"""A Redis command that a script runs."""

_READ_QUEUES, _POP, _REQUEUE_POPPED, _JOIN, _RUN_COMMANDS = map(
    load, ("read_queues", "pop", "requeue_popped", "join", "run_commands")
)


def read_queues(models: Iterable[str]) -> ScriptCall:
    """Read the queue depth and the workers of each model, and the number of pending webhooks."""
    return _READ_QUEUES.call((keys.DELIVERIES,), *map(tasks.queue_name, models))


def pop(queue: str, limit: int, popped: Iterable[str] = ()) -> ScriptCall:
    """Pop up to `limit` jobs of a queue, and read them after those that the caller has `popped` itself."""
    key = rq_keys.QUEUE + queue
    return _POP.call((key, key + rq_keys.INTERMEDIATE), limit, *popped)


def requeue_popped(queue: str, *, after_s: float) -> ScriptCall:
    """Requeue the jobs of a queue that were popped more than `after_s` ago and never started."""
    key = rq_keys.QUEUE + queue
    return _REQUEUE_POPPED.call((key + rq_keys.INTERMEDIATE, key), after_s)


def join(model: str, *, known: bytes, live: int, commands: Iterable[Command]) -> ScriptCall:
    """Announce a worker by `commands`, unless the model's announcement or its number of live workers has changed."""
    return _JOIN.call((keys.announcement(model), keys.workers(model)), known, live, *_words(commands))


def run_commands(commands: Iterable[Command]) -> ScriptCall:
    """Run commands as a transaction does, but also while Redis is full; the answer is that of the last one."""
    return _RUN_COMMANDS.call((), *_words(commands))


def _words(commands: Iterable[Command]) -> Iterable[Any]:
    return chain.from_iterable((len(command), *command) for command in commands)
