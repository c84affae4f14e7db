"""The names by which the API asks a worker for work, and the terms of a job; neither side imports the other."""

import re
from pathlib import PurePosixPath

ANALYZE_IMAGE = "image_analysis_worker.books.stock.analyze_image"
"""Task function: keyword argument `job_id`; the image lies under `keys.image(job_id)`.

The function has moved to `image_analysis_worker.rq.task`. Jobs keep its old name for one more release, which workers of
the release before this one know as well; this release answers to both names.
"""

SERIALIZER = "json"
"""RQ's default is pickle, which runs code for everybody who can write to Redis."""

MAX_ATTEMPTS = 3
"""A job whose worker dies goes to another one, this many times in all.

RQ is set to retry as often. The worker that takes the job next sees whether its attempts are used up and writes the
job's record; RQ or rq-dashboard would only move the job between RQ's registries.
"""


_HUB_PART = r"[A-Za-z0-9._]+(?:-[A-Za-z0-9._]+)*"


def model_name(model_id: str) -> str:
    """Name a model where MODEL_NAME does not: a hub ID as it is, a folder by its last part, never by its path."""
    if model_id.startswith(("/", ".", "~")):
        return PurePosixPath(model_id).name
    return model_id


def queue_name(name: str) -> str:
    """Name the queue of a model that is called `name`; two names never share a queue.

    rq-dashboard's paths cannot hold slashes. Names as the hub gives them never contain `--`, so theirs can replace the
    slash. In all others every odd character, the hyphen too, becomes `~` and its bytes in hex.
    """
    if re.fullmatch(rf"{_HUB_PART}(?:/{_HUB_PART})?", name):
        return "analysis-" + name.replace("/", "--")
    return "analysis-" + re.sub(
        r"[^A-Za-z0-9._]", lambda odd: "".join(f"~{byte:02x}" for byte in odd[0].encode()), name
    )
