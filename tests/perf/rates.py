"""From the times at which jobs ended to a rate."""

from collections.abc import Sequence

SAME_STEP = 0.2
"""Ends closer than this share of the mean distance belong to one step: a batch, or one look at the queue."""


def steady_rate(started_s: float, ends_s: Sequence[float], *, lead: int, tail: int) -> float:
    """Return the jobs per second between the first `lead` jobs and the last `tail`.

    The lead leaves out what a worker does before its first batch is out, the tail what it does with an empty queue
    behind it. Batches end all at once, so both borders move on to the end of a step.
    """
    mean_s = (ends_s[-1] - started_s) / len(ends_s)

    def step_end(index: int) -> int:
        while index + 1 < len(ends_s) and ends_s[index + 1] - ends_s[index] < SAME_STEP * mean_s:
            index += 1
        return index

    last = step_end(len(ends_s) - tail - 1)
    if lead == 0:
        return (last + 1) / (ends_s[last] - started_s)
    first = step_end(lead - 1)
    if first >= last:  # one step holds them all: there is nothing but the whole
        return len(ends_s) / (ends_s[-1] - started_s)
    return (last - first) / (ends_s[last] - ends_s[first])
