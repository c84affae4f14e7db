"""The gate's verdict on scores that are not numbers."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from image_analysis_common.models import EngineReport
from image_analysis_worker.engines.gate import Answers, compare, judge

NETWORK = cast(Any, SimpleNamespace(engine="openvino", precision="bfloat16"))
SCORES = np.array([[0.9, 0.1], [0.8, 0.2]])
REFERENCE = Answers(SCORES, images_per_s=1)


def test_scores_that_are_not_finite_agree_with_nothing() -> None:
    broken = Answers(SCORES.copy(), images_per_s=1)
    broken.scores[0] = np.nan

    found = compare(NETWORK, broken, REFERENCE)

    assert (found.agreement, found.confidence_difference) == (0.5, 0.5)
    assert judge(found, 0.4) is not None
    assert judge(compare(NETWORK, REFERENCE, REFERENCE), 1) is None


def test_difference_that_is_no_number_is_refused() -> None:
    figures = {"agreement": 1, "confidence_difference": np.nan, "images_per_s": 1}

    assert judge(EngineReport(engine="openvino", precision="bfloat16", **figures), 0.5) is not None
