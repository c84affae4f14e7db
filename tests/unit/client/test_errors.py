"""Errors travel between processes and are copied without a loss."""

import copy
import pickle
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any
from uuid import UUID

import pytest

from image_analysis_client.errors import ImageAnalysisError, JobFailed
from image_analysis_client.values import Outcome

JOB_ID = UUID("00000000-0000-0000-0000-000000000001")
VALUES: dict[str, Any] = {
    "code": "a_code",
    "detail": "What happened.",
    "status": 429,
    "request_id": "r1",
    "retry_after": 1.5,
    "job_id": JOB_ID,
    "failed": [("cat", Outcome("a.png", error=JobFailed("corrupt_image", "It is broken.", JOB_ID)))],
    "total": 12,
}


def kinds(root: type[ImageAnalysisError]) -> Iterator[type[ImageAnalysisError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def pickled(error: ImageAnalysisError) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("duplicate", [pickled, copy.copy])
@pytest.mark.parametrize("kind", [*kinds(ImageAnalysisError)])
def test_error_keeps_all_that_it_says(
    kind: type[ImageAnalysisError], duplicate: Callable[[ImageAnalysisError], Any]
) -> None:
    error = kind(**{name: VALUES[name] for name in signature(kind).parameters})

    copied = duplicate(error)

    assert (type(copied), str(copied), copied.args) == (kind, str(error), error.args)
    assert repr(vars(copied)) == repr(vars(error))  # two exceptions are never equal
