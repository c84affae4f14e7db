"""Honest clients that call the API while hostile ones attack it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from support.cores import Stopwatch
from support.samples import base64_body, make_png

SERVED_S = 1.0
"""Longest time for an answer while the processes have a core; on idle cores it takes 5 ms."""

STARVED_S = 0.4


@contextmanager
def others_served(api: str, process: int) -> Iterator[None]:
    """Submit images and ask for jobs while the block runs; fail if one of these calls is refused or slow.

    `process` is the API's.
    """
    slowest_s, statuses, is_over = 0.0, set(), False

    def call() -> None:
        nonlocal slowest_s
        with httpx.Client(base_url=api, trust_env=False) as client:
            while not is_over:
                stopwatch = Stopwatch(process, has_busy_threads=True)
                answers = client.post("/analyze-image", json=base64_body(make_png(400))), client.get("/health/ready")
                seen = {answer.status_code for answer in answers}
                # Redis must answer within 0.8 s, however long the API waits for a core.
                statuses.update(seen - {503} if stopwatch.waited_s > STARVED_S else seen)
                slowest_s = max(slowest_s, stopwatch.elapsed_s / 2)

    with ThreadPoolExecutor(1) as thread:
        calls = thread.submit(call)
        try:
            yield
        finally:
            is_over = True
        calls.result()
    assert statuses <= {200, 202}
    assert slowest_s < SERVED_S, f"an answer took {slowest_s:.1f} s"
