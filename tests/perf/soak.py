"""Sends twice the capacity for `SOAK_SECONDS` (600) to a separate stack; run by `just soak`.

Exits with 0 if every answer is a 202 or 503, every accepted job ended, and no process grew. What an ended job keeps in
Redis for an hour is not counted as growth.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from redis import Redis
from rich.console import Console
from rich.table import Table

from image_analysis_common import keys
from image_analysis_common.tasks import queue_name
from perf.load import Load, closed_loop, open_loop
from perf.photos import SMALL_PX, Photos
from stack import Stack
from support.memory import resident_bytes
from support.waiting import wait_until

TRIAL_JOBS = 400
CONNECTIONS = 64
SLICES = 20
MB = 2**20
GROWTH_BYTES = {"api": 24 * MB, "worker": 64 * MB}
"""Growth between the end of the first quarter, when all buffers have been full once, and the end."""
KEPT_BYTES_PER_JOB = 12 * 1024
MAX_DEPTH = 500
ENVIRONMENT = {
    "REDIS_URL": "",
    "REDIS_HOST": "",
    "RATE_LIMIT_MAX_REQUESTS": "1000000000",
    "MAX_QUEUE_DEPTH": str(MAX_DEPTH),
    "LOG_LEVEL": "WARNING",
    "LOG_FORMAT": "json",
}


@dataclass(frozen=True)
class Sample:
    """What was observed at the end of a time slice."""

    at_s: float
    statuses: Counter[int]
    slowest_ms: float
    depth: int
    resident: dict[str, int]
    redis_used: int


class Soak:
    """A stack under overload."""

    def __init__(self, stack: Stack, redis: Redis) -> None:
        self._redis = redis
        self._pids = {program: stack.pid(program) for program in ("api", "worker", "redis")}
        self._queue = f"rq:queue:{queue_name('vit-tiny-cifar10')}"
        self._port = urlsplit(stack.api_url).port or 0
        self._requests = _requests()

    def find_capacity(self) -> float:
        """Run some jobs, and return how many end per second."""
        started_s = time.monotonic()
        requests = (next(self._requests) for _ in range(TRIAL_JOBS))
        closed_loop(self._port, requests, connections=8)
        wait_until(lambda: not self.open_jobs(), "the trial's jobs have ended", 120)
        return TRIAL_JOBS / (time.monotonic() - started_s)

    def hold(self, rate_per_s: float, duration_s: float) -> Iterator[Sample]:
        """Send images at a rate, and take a sample at the end of each time slice."""
        started_s = time.monotonic()
        for _ in range(SLICES):
            load: Load = open_loop(
                self._port,
                self._requests,
                connections=CONNECTIONS,
                duration_s=duration_s / SLICES,
                rate_per_s=rate_per_s,
            )
            yield Sample(
                at_s=time.monotonic() - started_s,
                statuses=load.statuses,
                slowest_ms=max(load.latencies_s) * 1000,
                depth=self._redis.llen(self._queue),
                resident={program: resident_bytes(pid) for program, pid in self._pids.items()},
                redis_used=int(self._redis.info("memory")["used_memory"]),
            )

    def open_jobs(self) -> int:
        return sum(count for status, count in self.ends().items() if status not in ("COMPLETED", "FAILED"))

    def ends(self) -> Counter[str]:
        """Count all accepted jobs by status; records stay for an hour."""
        ends: Counter[str] = Counter()
        jobs = list(self._redis.scan_iter(keys.job("*"), count=1000))
        for start in range(0, len(jobs), 1000):
            with self._redis.pipeline(transaction=False) as pipeline:
                for key in jobs[start : start + 1000]:
                    pipeline.hget(key, "status")
                ends.update(status.decode() for status in pipeline.execute())
        return ends


def _requests() -> Iterator[bytes]:
    for body in Photos("small", SMALL_PX).bodies():
        head = (
            b"POST /analyze-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        yield head % len(body) + body


def main() -> int:
    """Print a table, and the faults."""
    duration_s = float(os.environ.get("SOAK_SECONDS") or 600)
    console = Console(highlight=False)
    with TemporaryDirectory(prefix="image-analysis-soak-") as folder:
        log = Path(folder) / "stack.log"
        with Stack(ENVIRONMENT, free_ports=True, log=log) as stack, Redis.from_url(stack.redis_url) as redis:
            soak = Soak(stack, redis)
            pids = {program: stack.pid(program) for program in ("api", "worker", "redis")}
            capacity_per_s = soak.find_capacity()
            console.print(
                f"{capacity_per_s:.0f} jobs/s are the capacity; {2 * capacity_per_s:.0f} for {duration_s:g} s"
            )
            samples = list(soak.hold(2 * capacity_per_s, duration_s))
            wait_until(lambda: not soak.open_jobs(), "every accepted job has ended", 2 * MAX_DEPTH)
            faults = list(_find_faults(samples, soak.ends()))
            if {program: stack.pid(program) for program in pids} != pids:
                faults.append("a process died")
        faults += ["the log has a traceback"] if "Traceback" in log.read_text() else []
    console.print(_draw(samples))
    for fault in faults:
        console.print(f"fault: {fault}", style="bold red")
    return bool(faults)


def _find_faults(samples: list[Sample], ends: Counter[str]) -> Iterator[str]:
    statuses = sum((sample.statuses for sample in samples), Counter[int]())
    accepted = statuses[202] + TRIAL_JOBS
    if unexpected := statuses.keys() - {202, 503}:
        yield f"answers {sorted(unexpected)}"
    if not statuses[503]:
        yield "nothing was refused: this was not twice the capacity"
    if ends["COMPLETED"] != accepted:
        yield f"of {accepted} accepted jobs ended {dict(ends)}"
    first, last = samples[SLICES // 4], samples[-1]
    for program, limit_bytes in GROWTH_BYTES.items():
        if (growth_bytes := last.resident[program] - first.resident[program]) > limit_bytes:
            yield f"{program} grew by {growth_bytes / MB:.0f} MB"
    ended = sum(sample.statuses[202] for sample in samples[SLICES // 4 + 1 :])
    if last.redis_used - first.redis_used > KEPT_BYTES_PER_JOB * ended + MAX_DEPTH * 64 * 1024:
        yield f"Redis grew by {(last.redis_used - first.redis_used) / ended:.0f} bytes for each job"


def _draw(samples: list[Sample]) -> Table:
    table = Table("time", "202", "503", "other", "slowest", "queue", "API", "worker", "Redis", "Redis, data")
    for sample in samples:
        accepted, refused = sample.statuses[202], sample.statuses[503]
        table.add_row(
            f"{sample.at_s:.0f} s",
            str(accepted),
            str(refused),
            str(sample.statuses.total() - accepted - refused),
            f"{sample.slowest_ms:.0f} ms",
            str(sample.depth),
            *(f"{sample.resident[program] / MB:.0f} MB" for program in ("api", "worker", "redis")),
            f"{sample.redis_used / MB:.0f} MB",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
