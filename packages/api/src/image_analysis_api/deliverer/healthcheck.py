"""Whether this host's deliverer gets anywhere; a container's health check runs it as a program.

A deliverer beats from the loop that takes deliveries, so a fresh heartbeat in Redis says it all.
"""

import socket
import sys

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from image_analysis_common import keys
from image_analysis_common.settings import SharedSettings
from image_analysis_common.startup import StartupError

TIMEOUT_S = 3


def main() -> None:
    """Exit with 0 if a deliverer beats on this host, otherwise with 1 and the reason."""
    try:
        dsn = SharedSettings.from_environment().redis_dsn
        redis = Redis.from_url(
            dsn, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        if not redis.exists(keys.deliverer(socket.gethostname())):
            sys.exit(f"No deliverer on this host has reported in the last {keys.WORKER_TTL_S} s.")
    except StartupError as error:
        sys.exit(str(error))
    except RedisError as error:
        sys.exit(f"Redis cannot be reached: {error}")


if __name__ == "__main__":
    main()
