"""Figures of merit of a classifier's confidence."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def calibration_error(confidences: Floats, is_right: Booleans, bins: int = 15) -> float:
    """Return the expected calibration error: the difference of confidence and accuracy, over bins of equal width."""
    places = np.minimum((confidences * bins).astype(int), bins - 1)
    return float(
        sum(abs(confidences[places == place].sum() - is_right[places == place].sum()) for place in range(bins))
        / len(confidences)
    )


def auroc(known: Floats, unknown: Floats) -> float:
    """Return the probability that one of `known` exceeds one of `unknown`; a tie counts half."""
    both = np.sort(unknown)
    below = np.searchsorted(both, known, side="left")
    not_above = np.searchsorted(both, known, side="right")
    return float((below + not_above).mean() / 2 / len(unknown))
