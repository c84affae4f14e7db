"""A point in time until which something may go on."""

import time


class Deadline:
    """A point in time; without a limit it never comes."""

    def __init__(self, timeout_s: float | None) -> None:
        self._ends_at = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    def left_s(self, most_s: float = float("inf")) -> float:
        return max(min(self._ends_at - time.monotonic(), most_s), 0.0)

    def later(self, seconds: float) -> "Deadline":
        """Return the point in time that comes so much later."""
        return Deadline(self.left_s() + seconds)


NEVER = Deadline(None)
