"""Records which jobs a worker had when it was killed, and the time from the kill to the end of those jobs."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from redis import Redis

from chaos.redis_state import QUEUE


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: its aim, its time, and the jobs that it hit."""

    aim: str
    at_s: float
    jobs: frozenset[str]


@dataclass
class KillLog:
    """Reads from RQ's registries which jobs a kill has hit."""

    redis: Redis
    kills: list[Kill] = field(default_factory=list)
    _between: frozenset[str] = frozenset()

    def note(self, aim: str, worker: str, at_s: float, unended: Iterable[str]) -> Kill:
        """Record a kill right after it: the jobs that the worker ran, and those between pop and start.

        The registries do not say which worker has popped a job before it is started. A popped job that was there at the
        last kill belongs to that kill: otherwise it would have been started by now.
        """
        with self.redis.pipeline() as pipeline:
            pipeline.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1)
            pipeline.zrange(f"rq:wip:{QUEUE}", 0, -1)
            popped, started = pipeline.execute()
            for entry in started:
                pipeline.hget(b"rq:execution:" + entry, "worker_name")
            owners = pipeline.execute()
        running = {
            entry.decode().partition(":")[0]
            for entry, owner in zip(started, owners, strict=True)
            if owner == worker.encode()
        }
        between = frozenset(job_id.decode() for job_id in popped)
        hit = (running | (between - self._between)) & set(unended)
        self._between = between
        self.kills.append(Kill(aim, at_s, frozenset(hit)))
        return self.kills[-1]

    def hits(self, job_id: str) -> list[Kill]:
        return [kill for kill in self.kills if job_id in kill.jobs]

    def recoveries(self, ended_s: Mapping[str, float]) -> "Recoveries":
        """Measure the time from each kill to the end of the last job that it hit; of several kills, the last counts."""
        slowest: dict[Kill, float] = {}
        for job_id in {job_id for kill in self.kills for job_id in kill.jobs}:
            last = self.hits(job_id)[-1]
            recovery_s = ended_s.get(job_id, float("inf")) - last.at_s
            slowest[last] = max(slowest.get(last, 0.0), recovery_s)
        return Recoveries([(kill.aim, len(kill.jobs), slowest.get(kill)) for kill in self.kills])


@dataclass(frozen=True)
class Recoveries:
    """For each kill its aim, the number of jobs that it hit, and their slowest recovery; None if it hit none."""

    kills: list[tuple[str, int, float | None]]

    @property
    def times_s(self) -> list[float]:
        return sorted(time_s for _, _, time_s in self.kills if time_s is not None)

    def summary(self) -> str:
        times_s = self.times_s or [0.0]
        by_aim = {aim: sum(1 for other, _, _ in self.kills if other == aim) for aim, _, _ in self.kills}
        return (
            f"{len(self.kills)} kills ({', '.join(f'{count} {aim}' for aim, count in sorted(by_aim.items()))}), "
            f"{len(self.times_s)} of them hit jobs; recovery min {times_s[0]:.1f} s, "
            f"median {statistics.median(times_s):.1f} s, max {times_s[-1]:.1f} s"
        )

    def report(self, seed: int) -> dict[str, object]:
        """Return the report for `CHAOS_REPORT`."""
        times_s = self.times_s
        return {
            "seed": seed,
            "kills": [{"aim": aim, "jobs": jobs, "recovery_s": time_s} for aim, jobs, time_s in self.kills],
            "min_s": min(times_s, default=None),
            "median_s": statistics.median(times_s) if times_s else None,
            "max_s": max(times_s, default=None),
        }
