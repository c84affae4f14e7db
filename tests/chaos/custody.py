"""Who had which job in hand when a worker was killed, and how long those jobs took to end after that."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from redis import Redis

from chaos.books import QUEUE


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: what it was aimed at, when it came and which jobs it hit."""

    aim: str
    at_s: float
    jobs: frozenset[str]


@dataclass
class Custody:
    """Reads from RQ's books which jobs a kill has hit."""

    redis: Redis
    kills: list[Kill] = field(default_factory=list)
    _between: frozenset[str] = frozenset()

    def note(self, aim: str, worker: str, at_s: float, unended: Iterable[str]) -> Kill:
        """Note a kill, right after it: the jobs that the worker ran, and those between pop and start.

        The books do not say who has popped a job before it is started. One that was there at the last kill already
        is an orphan of that kill, or it would have been started meanwhile.
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
        """Measure the time from each kill to the end of the last job that it hit; a later hit starts anew."""
        slowest: dict[Kill, float] = {}
        for job_id in {job_id for kill in self.kills for job_id in kill.jobs}:
            last = self.hits(job_id)[-1]
            recovery_s = ended_s.get(job_id, float("inf")) - last.at_s
            slowest[last] = max(slowest.get(last, 0.0), recovery_s)
        return Recoveries([(kill.aim, len(kill.jobs), slowest.get(kill)) for kill in self.kills])


@dataclass(frozen=True)
class Recoveries:
    """For each kill its aim, the number of jobs it hit, and the slowest of their recoveries; None where it hit none."""

    kills: list[tuple[str, int, float | None]]

    @property
    def times_s(self) -> list[float]:
        return sorted(time_s for _, _, time_s in self.kills if time_s is not None)

    def summary(self) -> str:
        times_s = self.times_s or [0.0]
        by_aim = {aim: sum(1 for other, _, _ in self.kills if other == aim) for aim, _, _ in self.kills}
        return (
            f"{len(self.kills)} kills ({', '.join(f'{count} {aim}' for aim, count in sorted(by_aim.items()))}), "
            f"{len(self.times_s)} of them with jobs in hand; recovery min {times_s[0]:.1f} s, "
            f"median {statistics.median(times_s):.1f} s, max {times_s[-1]:.1f} s"
        )

    def report(self, seed: int) -> dict[str, object]:
        """Return what a program wants to know of it."""
        times_s = self.times_s
        return {
            "seed": seed,
            "kills": [{"aim": aim, "jobs": jobs, "recovery_s": time_s} for aim, jobs, time_s in self.kills],
            "min_s": min(times_s, default=None),
            "median_s": statistics.median(times_s) if times_s else None,
            "max_s": max(times_s, default=None),
        }
