"""The rows that a run is made of, with the figure of every round; the median counts."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

BARE_LOOP = "bare loop"
EMPTY_HANDLER = "empty handler"

Say = Callable[[str], None]
"""Tells whoever waits what is going on."""


@dataclass(frozen=True)
class Turns:
    """The rounds of a part: as many as are wanted, but after the first none begins when `until_s` has passed."""

    wanted: int
    until_s: float
    """On the monotonic clock: a slow or busy machine gets fewer rounds, not a longer run."""

    def __iter__(self) -> Iterator[int]:
        for turn in range(self.wanted):
            if turn and time.monotonic() > self.until_s:
                return
            yield turn


@dataclass
class SpeedRow:
    """One contender on one checkpoint and one size of photo."""

    contender: str
    model: str
    photos: str
    setting: str
    images_per_s: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        return median(self.images_per_s)


@dataclass
class CostRow:
    """What a job costs one worker when the model does nothing."""

    worker: str
    setting: str
    job_ms: list[float] = field(default_factory=list)

    @property
    def cost_ms(self) -> float:
        return median(self.job_ms)


@dataclass
class CallRow:
    """One call: its peak rate, and the latencies at half of it."""

    call: str
    setting: str
    calls_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """What a call costs the server's process at the peak: the figure that other programs disturb least."""
    client_share: list[float] = field(default_factory=list)
    """The part of a core that the load generator used at the peak; near 1, it was the limit itself."""

    @property
    def rate(self) -> float:
        return median(self.calls_per_s)

    @property
    def wait_ms(self) -> float:
        return median(self.p99_ms)


@dataclass(frozen=True)
class Results:
    """Every row of a run; a part that was not asked for is empty, a rival that did not run is missing for a reason."""

    speeds: Sequence[SpeedRow] = ()
    costs: Sequence[CostRow] = ()
    calls: Sequence[CallRow] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    foreign_cores: Sequence[float] = ()
    """How many cores other programs kept busy, each time the bare loop ran."""
