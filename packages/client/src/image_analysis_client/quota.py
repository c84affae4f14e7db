"""What the API says of the caller's quota, in the headers of the IETF draft `ratelimit-headers-10`."""

import re
import time
from collections.abc import Callable, Mapping

LIMIT = re.compile(r"(?:^|;)\s*q=(\d{1,15})\s*(?=$|;)")
REMAINING = re.compile(r"(?:^|;)\s*r=(\d{1,15})\s*(?=$|;)")
RESET = re.compile(r"(?:^|;)\s*t=(\d{1,15})\s*(?=$|;)")


class Quota:
    """How many images can be sent now, and when more can; unlimited as long as the API says nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit: int | None = None
        self._remaining: int | None = None
        self._resets_at = 0.0

    def note(self, headers: Mapping[str, str]) -> None:
        """Take in what an answer says."""
        limit, said = LIMIT.search(headers.get("ratelimit-policy", "")), headers.get("ratelimit", "")
        remaining, reset = REMAINING.search(said), RESET.search(said)
        if limit:
            self._limit = int(limit[1])
        if remaining:
            self._remaining = int(remaining[1])
            self._resets_at = self._clock() + (int(reset[1]) if reset else 1)

    def room(self, wanted: int) -> int:
        """Return how many of the wanted images can be sent now, as far as is known."""
        return min(limit for limit in (wanted, self._limit, self._remaining) if limit is not None)

    def pause_s(self) -> float:
        """Return how many seconds to wait before it is worth asking how much room there is."""
        return 0.0 if self.room(1) else max(self._resets_at - self._clock(), 0.0)
