"""A container's health check: whether a deliverer on this host works.

The main loop of a deliverer sends its heartbeats, so a recent heartbeat in Redis means that the loop runs.
"""

import socket
import sys

from redis.exceptions import RedisError

from image_analysis_api.store.client import connect_blocking
from image_analysis_common import keys
from image_analysis_common.settings import SharedSettings
from image_analysis_common.startup import StartupError

TIMEOUT_S = 3


def main() -> None:
    """Exit with 0 if a deliverer on this host sends heartbeats, otherwise with 1 and the reason."""
    try:
        settings = SharedSettings.from_environment()
        redis = connect_blocking(settings.redis_dsn, settings.sentinels, timeout_s=TIMEOUT_S)
        if not redis.exists(keys.deliverer(socket.gethostname())):
            sys.exit(f"No deliverer on this host has reported in the last {keys.WORKER_TTL_S} s.")
    except StartupError as error:
        sys.exit(str(error))
    except RedisError as error:
        sys.exit(f"Redis cannot be reached: {error}")


if __name__ == "__main__":
    main()
