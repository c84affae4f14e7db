"""Computes a rate from the times at which jobs ended."""

from collections.abc import Sequence

SAME_STEP = 0.2
"""Ends closer than this share of the mean distance belong to one step: a batch, or one read of the queue."""


def steady_rate(started_s: float, ends_s: Sequence[float], *, lead: int, tail: int) -> float:
    """Return the jobs per second between the first `lead` jobs and the last `tail`.

    The lead excludes the time before the first batch has ended; the tail excludes the time when the queue is empty. A
    batch ends at one moment, so both borders are moved to the end of a step.
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
    if first >= last:  # all ends are in one step, so use the whole time
        return len(ends_s) / (ends_s[-1] - started_s)
    return (last - first) / (ends_s[last] - ends_s[first])
