"""The scripts that handle whole queues of RQ."""

from collections.abc import Iterable

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.scripts.source import ScriptCall, load

_READ_QUEUES, _POP, _REQUEUE_POPPED = map(load, ("read_queues", "pop", "requeue_popped"))


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
