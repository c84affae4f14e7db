"""Checks whether a worker on this host makes progress; a container's health check runs this program.

A worker sends heartbeats only while none of its threads is stuck, so a recent heartbeat in Redis is enough.
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
    """Exit with 0 if a worker of `MODEL_NAME` on this host sends heartbeats, otherwise with 1 and the reason."""
    try:
        settings = WorkerSettings.from_environment()
        model = settings.model_name
        if not has_heartbeat(connect(settings.redis_dsn, settings.sentinels), model):
            sys.exit(f"No worker of {model} on this host has reported in the last {keys.WORKER_TTL_S} s.")
    except StartupError as error:
        sys.exit(str(error))
    except RedisError as error:
        sys.exit(f"Redis cannot be reached: {error}")


def has_heartbeat(redis: Redis, model: str) -> bool:
    """Return whether a running process on this host has sent a heartbeat lately.

    A heartbeat that is older than the process is not its own: process IDs are used again.
    """
    now_s, _ = redis.time()
    heartbeats = redis.zrangebyscore(keys.workers(model), now_s - keys.WORKER_TTL_S, "+inf", withscores=True)
    return any(
        (process_id := find_process(name.decode())) is not None
        and _measure_age_s(process_id) > now_s - heartbeat_s + 1  # heartbeats are stored in whole seconds
        for name, heartbeat_s in cast(list[tuple[bytes, float]], heartbeats)
    )


def _measure_age_s(process_id: int) -> float:
    """Return the age of a process; below 0 if there is no such process, or if the system is not Linux."""
    try:
        # proc(5): the start time is the 22nd field. The second one, in parentheses, may hold spaces and parentheses.
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
