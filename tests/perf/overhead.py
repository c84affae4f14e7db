"""The overhead rows: the CPU time of a job without a model, in our worker and in RQ's."""

import sys
from contextlib import ExitStack
from pathlib import Path

from redis import Redis

from image_analysis_common import keys
from perf.contenders import START_S, start_rq
from perf.photos import TINY_PX, Photos
from perf.programs import SCRIPTS, Program
from perf.queues import OurQueue, RqQueue, WorkQueue, drain
from perf.rates import steady_rate
from perf.rows import CostRow, Say, Turns

NOOP_MODEL = "noop"

COUNTS = {"ours": 2000, "SimpleWorker": 1000, "Worker": 150}
"""Jobs in a round, which takes three to five seconds."""

LEAD = 50


def measure_overhead(redis_url: str, folder: Path, turns: Turns, say: Say) -> list[CostRow]:
    """Let one worker after another empty a queue of tiny images.

    Raises:
        ProgramError: a worker does not work.
    """
    photos = Photos("tiny", TINY_PX)
    rows = {
        "ours": CostRow("ours", "image_analysis_worker: records, cache and RQ's bookkeeping, without decoding"),
        "SimpleWorker": CostRow("SimpleWorker", "rq worker -S json -w rq.SimpleWorker; a task that takes the bytes"),
        "Worker": CostRow("Worker", "rq worker -S json, RQ's default: forks for each job; a task that takes the bytes"),
    }
    with ExitStack() as stack:
        ours = stack.enter_context(
            Program(
                "ours-noop",
                [sys.executable, SCRIPTS / "noop_worker.py"],
                folder,
                {"REDIS_URL": redis_url, "MODEL_ID": NOOP_MODEL},
            )
        )
        workers: dict[str, tuple[Program, WorkQueue]] = {"ours": (ours, OurQueue(redis_url, NOOP_MODEL))}
        for name in ("SimpleWorker", "Worker"):
            program = stack.enter_context(start_rq(name, redis_url, folder))
            workers[name] = (program, RqQueue(redis_url, name, "rq_tasks.do_nothing"))
        with Redis.from_url(redis_url) as redis:
            ours.wait_until(lambda: redis.exists(keys.announcement(NOOP_MODEL)), "it announces its model", START_S)
        for turn in turns:
            say(f"cost per job, round {turn + 1} of {turns.wanted}")
            for name, (program, queue) in workers.items():
                times = drain(program, queue, photos.take(LEAD + COUNTS[name]))
                rows[name].job_ms.append(1000 / steady_rate(*times, lead=LEAD, tail=0))
    return list(rows.values())
