"""Tasks for RQ's own workers: what somebody writes who follows RQ's and transformers' documentation."""

import os
from functools import cache
from io import BytesIO
from typing import Any, cast

from redis import Redis

BELIEF = {"label": "cat", "score": 0.2}


@cache
def connect() -> Redis:
    return Redis.from_url(os.environ["REDIS_URL"])


@cache
def load(folder: str) -> Any:
    from transformers import pipeline

    return pipeline("image-classification", model=folder)


def fetch(key: str) -> bytes:
    return cast(bytes, connect().getdel(key))


def classify(*, key: str, folder: str) -> list[dict[str, Any]]:
    """Run the plain pipeline over one image."""
    from PIL import Image

    return list(load(folder)(Image.open(BytesIO(fetch(key)))))


def do_nothing(*, key: str) -> list[dict[str, Any]]:
    """Give an answer of the usual form without looking at the image."""
    fetch(key)
    return [BELIEF] * 5
