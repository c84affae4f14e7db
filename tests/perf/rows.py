"""The rows of a run, with the figure of every round; the median counts."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

VIT_BASE, BUNDLED = "ViT-base", "bundled"
REFUSED = " (refused by the gate)"
"""Ends the name of a model whose answers differ too much, so that a worker does not use it by itself."""

FORWARD_PASS = "forward pass"
"""The model alone, on ready tensors."""

BARE_LOOP = "bare loop"
FULL_LOOP = "bare loop, full decoding"
"""The same work without a service, from the photos' bytes to the labels; the first decodes JPEGs reduced, as ours."""

EMPTY_HANDLER = "empty handler"

Say = Callable[[str], None]
"""Prints the progress."""


@dataclass(frozen=True)
class Turns:
    """The rounds of a part: at least one, at most `wanted`, and no further one starts after `until_s`."""

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
    """The time that one worker takes for a job without a model."""

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
    """CPU time of the server's process for a call at the peak: other programs affect this figure least."""
    client_share: list[float] = field(default_factory=list)
    """The share of a core that the load generator used at the peak; near 1, the generator was the bottleneck."""

    @property
    def rate(self) -> float:
        return median(self.calls_per_s)

    @property
    def wait_ms(self) -> float:
        return median(self.p99_ms)


@dataclass(frozen=True)
class Results:
    """Every row of a run. A part that was not requested is empty; for a rival that did not run, there is a reason."""

    speeds: Sequence[SpeedRow] = ()
    costs: Sequence[CostRow] = ()
    calls: Sequence[CallRow] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    foreign_cores: Sequence[float] = ()
    """How many cores other programs used, each time that the forward pass ran."""
