"""Whether this host's worker gets anywhere; a container's health check runs it as a program.

A worker beats only while its loop comes round and no step of a job is stuck, so a fresh heartbeat in Redis says it all.
"""

import os
import sys
import time
from pathlib import Path
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from image_analysis_common import keys
from image_analysis_common.startup import StartupError
from image_analysis_worker.jobs.records import connect
from image_analysis_worker.name import find_process
from image_analysis_worker.settings import WorkerSettings


def main() -> None:
    """Exit with 0 if a worker of the environment's model beats on this host, otherwise with 1 and the reason."""
    try:
        settings = WorkerSettings.from_environment()
        model = settings.model_name
        if not has_heartbeat(connect(settings.redis_dsn), model):
            sys.exit(f"No worker of {model} on this host has reported in the last {keys.WORKER_TTL_S} s.")
    except StartupError as error:
        sys.exit(str(error))
    except RedisError as error:
        sys.exit(f"Redis cannot be reached: {error}")


def has_heartbeat(redis: Redis, model: str) -> bool:
    """Tell whether a process on this host has beaten lately; one that ended a moment ago, or its successor, has not."""
    now_s, _ = redis.time()
    beats = redis.zrangebyscore(keys.workers(model), now_s - keys.WORKER_TTL_S, "+inf", withscores=True)
    return any(
        (process_id := find_process(name.decode())) is not None
        and _measure_age_s(process_id) > now_s - beat_s + 1  # the server's seconds are whole ones
        for name, beat_s in cast(list[tuple[bytes, float]], beats)
    )


def _measure_age_s(process_id: int) -> float:
    """Return how long a process has been there, below 0 if it is not; Linux alone tells."""
    try:
        # proc(5): the 22nd field; the second one, in parentheses, may hold anything.
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
