"""The scripts about RQ's queues as a whole."""

from collections.abc import Iterable

from image_analysis_common import keys, rq_keys, tasks
from image_analysis_common.scripts.source import ScriptCall, load

_READ_QUEUES, _REQUEUE_POPPED = map(load, ("read_queues", "requeue_popped"))


def read_queues(models: Iterable[str]) -> ScriptCall:
    """Read what waits for each model and who works, and how many webhooks are pending."""
    return _READ_QUEUES.call((keys.DELIVERIES,), *map(tasks.queue_name, models))


def requeue_popped(queue: str, *, after_s: float) -> ScriptCall:
    """Bring back the jobs of a queue that have been between pop and start for longer than `after_s`."""
    key = rq_keys.QUEUE + queue
    return _REQUEUE_POPPED.call((key + rq_keys.INTERMEDIATE, key), after_s)
