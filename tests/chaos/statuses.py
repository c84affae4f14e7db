"""A client that repeatedly reads every job's status and place in RQ, and records what must never happen."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from redis import Redis

from chaos.redis_state import QUEUE
from image_analysis_common import keys

STEPS = {
    ("PENDING", "PROCESSING"),
    ("PENDING", "COMPLETED"),
    ("PENDING", "FAILED"),
    ("PROCESSING", "PENDING"),
    ("PROCESSING", "COMPLETED"),
    ("PROCESSING", "FAILED"),
}
"""The allowed steps: back only from PROCESSING to PENDING, and none after an end."""

INTERVAL_S = 0.05
ENDED_EVERY = 20
"""Ended jobs are read only once in this number of rounds, because there are thousands of them."""


class StatusPoller(threading.Thread):
    """Reads jobs repeatedly, from their `watch` on."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(name="status-poller", daemon=True)
        self._redis = Redis.from_url(redis_url)
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()
        self._open: list[str] = []
        self.seen: dict[str, list[str]] = {}
        self.ended_s: dict[str, float] = {}
        self._answers: dict[str, dict[bytes, bytes]] = {}
        self.changed_answers: list[str] = []
        self.misplaced: dict[str, int] = {}
        """Unended jobs that were in no place of RQ's registries, or in several, with the number of places."""
        self.samples = 0

    def watch(self, jobs: Iterable[str]) -> None:
        with self._lock:
            for job_id in jobs:
                self._open.append(job_id)
                self.seen[job_id] = []

    @property
    def unended(self) -> list[str]:
        with self._lock:
            return list(self._open)

    def wrong_steps(self) -> dict[str, list[str]]:
        """Return the statuses of the jobs with a step that is not allowed."""
        return {job_id: seen for job_id, seen in self.seen.items() if not STEPS.issuperset(pairwise(seen))}

    def run(self) -> None:
        number = 0
        while not self._is_stopped.wait(INTERVAL_S):
            number += 1
            self._sample(self.unended)
            self._locate()
            if number % ENDED_EVERY == 0:
                self._sample(list(self.ended_s))

    def stop(self) -> None:
        """Read everything once more and end."""
        self._is_stopped.set()
        self.join()
        self._sample(list(self.seen))
        self._redis.close()

    def _sample(self, jobs: list[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in jobs:
                pipeline.hgetall(keys.job(job_id))
            answers = pipeline.execute()
        now_s = time.monotonic()
        for job_id, fields in zip(jobs, answers, strict=True):
            self._note(job_id, fields, now_s)
        self.samples += len(jobs)

    def _locate(self) -> None:
        """Find in one transaction where the jobs are: waiting, between pop and start, or started."""
        jobs = self.unended
        with self._redis.pipeline() as pipeline:
            pipeline.lrange(f"rq:queue:{QUEUE}", 0, -1)
            pipeline.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1)
            pipeline.zrange(f"rq:wip:{QUEUE}", 0, -1)
            for job_id in jobs:
                pipeline.hget(keys.job(job_id), "status")
            waiting, between, started, *statuses = pipeline.execute()
        places = Counter(entry.decode().partition(":")[0] for entry in (*waiting, *between, *started))
        for job_id, status in zip(jobs, statuses, strict=True):
            if status in (b"PENDING", b"PROCESSING") and places[job_id] != 1:
                self.misplaced[job_id] = places[job_id]

    def _note(self, job_id: str, fields: dict[bytes, bytes], now_s: float) -> None:
        status = fields.get(b"status", b"GONE").decode()
        seen = self.seen[job_id]
        if not seen or seen[-1] != status:
            seen.append(status)
        if job_id in self.ended_s:
            if fields != self._answers[job_id]:
                self.changed_answers.append(job_id)
        elif status in ("COMPLETED", "FAILED"):
            with self._lock:
                self._open.remove(job_id)
            self.ended_s[job_id] = now_s
            self._answers[job_id] = fields
