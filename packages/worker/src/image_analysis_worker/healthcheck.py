"""Whether this host's worker gets anywhere; a container's health check runs it as a program.

A worker beats only while its loop comes round and no step of a job is stuck, so a fresh heartbeat in Redis says it all.
"""

import sys
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from image_analysis_common import keys
from image_analysis_common.errors import StartupError
from image_analysis_common.tasks import model_name
from image_analysis_worker.name import is_on_this_host
from image_analysis_worker.records import connect
from image_analysis_worker.settings import WorkerSettings


def main() -> None:
    """Exit with 0 if a worker of the environment's model beats on this host, otherwise with 1 and the reason."""
    try:
        settings = WorkerSettings.from_environment()
        model = model_name(settings.model_id)
        if not has_heartbeat(connect(settings.redis_dsn), model):
            sys.exit(f"no worker of {model} on this host has reported in the last {keys.WORKER_TTL_S} s")
    except StartupError as error:
        sys.exit(str(error))
    except RedisError as error:
        sys.exit(f"Redis cannot be asked: {error}")


def has_heartbeat(redis: Redis, model: str) -> bool:
    """Tell whether a worker on this host was heard of lately, on the server's clock."""
    now_s, _ = redis.time()
    names = cast(list[bytes], redis.zrangebyscore(keys.workers(model), now_s - keys.WORKER_TTL_S, "+inf"))
    return any(is_on_this_host(name.decode()) for name in names)


if __name__ == "__main__":
    main()
