"""Waiting while Redis does not answer, with one log line at the start and one at the end of an outage."""

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError

T = TypeVar("T")
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 2.0
log = structlog.get_logger(__name__)


class Outage:
    """Whether Redis answers, shared by all threads of a worker; waits end when `is_stopping` is set."""

    def __init__(self, is_stopping: threading.Event) -> None:
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        self._is_away = False
        self._is_refused = False
        self._available_since_s = -math.inf

    def retry(self, call: Callable[[], T]) -> T:
        """Call until Redis accepts it, waiting longer after each failure; log once if Redis is full.

        Raises:
            RedisError: the worker is stopping, and Redis still does not answer, or is full.
        """
        wait_s, is_full = FIRST_WAIT_S, False
        while True:
            try:
                value = call()
            except RedisError as error:
                self.record(error)
                if isinstance(error, OutOfMemoryError) and not is_full:
                    log.warning("store_full", action="Raise maxmemory, or wait until jobs expire.")
                    is_full = True
                if self._is_stopping.wait(wait_s):
                    raise
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            else:
                self.record(None)
                return value

    def record(self, error: RedisError | None) -> None:
        """Record whether Redis answered a call; log a change, and once if it refuses the password.

        A full Redis answers, and other workers can send their heartbeats.
        """
        if isinstance(error, OutOfMemoryError):
            error = None
        is_refused = isinstance(error, AuthenticationError)
        with self._lock:
            if error is not None and (not self._is_away or (is_refused and not self._is_refused)):
                log.warning("store_unavailable", cause=f"{type(error).__name__}: {error}")
            if error is None and self._is_away:
                log.info("store_available")
                self._available_since_s = time.monotonic()
            self._is_away = error is not None
            self._is_refused = self._is_away and (self._is_refused or is_refused)

    @property
    def available_for_s(self) -> float:
        """Seconds since the last outage ended; 0 during one, infinity if there was none."""
        return 0.0 if self._is_away else time.monotonic() - self._available_since_s
