"""What API and worker must agree on to queue jobs: task and queue names, serializer, attempts."""

import re
from pathlib import PurePosixPath

ANALYZE_IMAGE = "image_analysis_worker.books.stock.analyze_image"
"""The task function. Its keyword argument is `job_id`; the image is under `keys.image(job_id)`.

The function has moved to `image_analysis_worker.rq.task`. Jobs contain its old name for one more release, because
workers of the previous release know only that one. Workers of this release know both.
"""

SERIALIZER = "json"
"""RQ's default is pickle, with which anyone who can write to Redis can run code."""

MAX_ATTEMPTS = 3
"""How often a job is attempted if its workers die.

RQ is set to the same number of retries. When no attempt is left, the next worker that takes the job fails it and writes
its record; RQ or rq-dashboard would only move the job between RQ's registries.
"""


_HUB_PART = r"[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*"


def model_name(model_id: str) -> str:
    """Make a model's default name: a hub ID stays as it is; a folder is named by its last part, never by its path."""
    if model_id.startswith(("/", ".", "~")):
        return PurePosixPath(model_id).name
    return model_id


def queue_name(name: str) -> str:
    """Name the queue of the model called `name`; two names never share a queue.

    rq-dashboard's paths cannot contain slashes. Hub IDs never contain `--`, so in them it replaces the slash. In all
    other names, each character but letters, digits, `.` and `_` becomes `~` and its bytes in hex.
    """
    if re.fullmatch(rf"{_HUB_PART}(?:/{_HUB_PART})?", name):
        return "analysis-" + name.replace("/", "--")
    return "analysis-" + re.sub(
        r"[^A-Za-z0-9._]", lambda odd: "".join(f"~{byte:02x}" for byte in odd[0].encode()), name
    )
