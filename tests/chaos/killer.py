"""Kills workers under load: at random moments, and at the moments when a job is lost most easily."""

import random
import signal
import threading
import time
from collections.abc import Callable

from chaos.kill_log import KillLog
from chaos.redis_state import QUEUE
from chaos.scenario import Scenario, Submitter
from chaos.statuses import StatusPoller
from chaos.workers import Crew, Worker
from image_analysis_common import keys
from support.images import large_images, small_images, unique
from support.waiting import wait_until

DEPTH = 24
"""Jobs that the feeder keeps in the queue."""


class Feeder(threading.Thread):
    """Keeps the queue filled, and records the image of each job."""

    def __init__(self, scenario: Scenario, poller: StatusPoller, chance: random.Random) -> None:
        super().__init__(name="feeder", daemon=True)
        self._redis = scenario.redis
        self._submitter = scenario.submitter()
        self._poller = poller
        self._chance = chance
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self.is_resting = threading.Event()
        self.images: dict[str, bytes] = {}

    def submit(self, images: list[bytes]) -> None:
        """Queue images with known answers, each as a new file."""
        with self._lock:
            _submit(self._submitter, images, self.images, self._poller)

    def run(self) -> None:
        while not self._is_stopped.wait(0.02):
            if not self.is_resting.is_set() and self._redis.llen(f"rq:queue:{QUEUE}") < DEPTH:
                self.submit([self._draw() for _ in range(DEPTH // 2)])

    def stop(self) -> None:
        self._is_stopped.set()
        self.join()

    def _draw(self) -> bytes:
        return self._chance.choice(large_images() if self._chance.random() < 0.2 else small_images())


def _submit(submitter: Submitter, images: list[bytes], known: dict[str, bytes], poller: StatusPoller) -> None:
    jobs = submitter.submit(unique(image) for image in images)
    known.update(zip(jobs, images, strict=True))
    poller.watch(jobs)


class Killer:
    """Kills one worker of the crew at a time; a spare replaces it at once."""

    def __init__(
        self,
        scenario: Scenario,
        crew: Crew,
        feeder: Feeder,
        poller: StatusPoller,
        kill_log: KillLog,
        chance: random.Random,
    ) -> None:
        self._scenario = scenario
        self._crew = crew
        self._feeder = feeder
        self._poller = poller
        self._kill_log = kill_log
        self._chance = chance
        self.aims: dict[str, Callable[[Worker], None]] = {
            "at random": self._aim_at_random,
            "between pop and start": self._aim_between_pop_and_start,
            "while decoding": self._aim_while_decoding,
            "in the forward pass": self._aim_in_the_forward_pass,
            "after the result": self._aim_after_the_result,
        }

    def kill(self, aim: str) -> None:
        """Kill one worker and record its jobs."""
        worker = self._chance.choice(self._crew.working)
        name = worker.name
        self.aims[aim](worker)
        worker.signal(signal.SIGKILL)
        at_s = time.monotonic()
        assert worker.wait() == -signal.SIGKILL
        self._kill_log.note(aim, name, at_s, self._poller.unended)
        self._crew.replace(worker)
        self._feeder.is_resting.clear()

    def plan(self, kills: int) -> list[str]:
        """Choose the aims: two thirds at random moments, the rest spread over the special ones, in random order."""
        instants = [aim for aim in self.aims if aim != "at random"]
        aimed = [instants[number % len(instants)] for number in range(kills // 3)]
        aims = aimed + ["at random"] * (kills - len(aimed))
        self._chance.shuffle(aims)
        return aims

    def _aim_at_random(self, _worker: Worker) -> None:
        self._pause(min(self._chance.expovariate(1 / 1.2), 4))

    def _aim_between_pop_and_start(self, worker: Worker) -> None:
        """Let Redis give a job to a worker that waits in its pop, and kill the worker before it reads the answer."""
        self._rest()
        if self._chance.random() < 0.5:
            worker.signal(signal.SIGSTOP)
        self._feeder.submit(list(small_images()[:4]))
        self._pause(self._chance.uniform(0, 0.004))

    def _aim_while_decoding(self, _worker: Worker) -> None:
        self._rest()
        self._feeder.submit(list(large_images()) * 4)
        self._pause(self._chance.uniform(0.005, 0.15))

    def _aim_in_the_forward_pass(self, worker: Worker) -> None:
        worker.report("classify")
        worker.wait_for_report()
        self._pause(self._chance.uniform(0, 0.01))

    def _aim_after_the_result(self, worker: Worker) -> None:
        """Stop the other workers, so that the next result is from this one."""
        others = [other for other in self._crew.working if other is not worker]
        for other in others:
            other.signal(signal.SIGSTOP)
        with self._scenario.redis.pubsub(ignore_subscribe_messages=True) as results:
            results.psubscribe("__keyspace@0__:" + keys.result("*"))
            wait_until(lambda: results.get_message(timeout=0.5), "the worker writes a result", 20)
        worker.signal(signal.SIGKILL)
        for other in others:
            other.signal(signal.SIGCONT)

    def _rest(self) -> None:
        """Wait until the queue is empty."""
        self._feeder.is_resting.set()
        wait_until(lambda: not self._scenario.redis.llen(f"rq:queue:{QUEUE}"), "the queue is empty", 60)

    def _pause(self, duration_s: float) -> None:
        until_s = time.monotonic() + duration_s
        if duration_s > 0.02:
            wait_until(lambda: time.monotonic() >= until_s, "the moment of the kill")
        while time.monotonic() < until_s:
            pass
