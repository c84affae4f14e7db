import numpy as np
import pytest

from bundled_model.measures import auroc, calibration_error


def test_confidence_that_equals_accuracy_is_calibrated() -> None:
    confidences = np.full(10, 0.7)
    is_right = np.array([True] * 7 + [False] * 3)

    error = calibration_error(confidences, is_right)

    assert error == pytest.approx(0)


def test_confidence_above_accuracy_counts_in_full() -> None:
    confidences = np.array([1.0, 1.0, 0.6, 0.6])
    is_right = np.array([True, False, True, False])

    error = calibration_error(confidences, is_right)

    assert error == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("known", "unknown", "area"),
    [([0.9, 0.8], [0.1, 0.2], 1.0), ([0.1], [0.9], 0.0), ([0.5, 0.5], [0.5], 0.5), ([0.9, 0.3], [0.2, 0.5], 0.75)],
)
def test_auroc_counts_the_pairs_in_the_right_order(known: list[float], unknown: list[float], area: float) -> None:
    assert auroc(np.array(known), np.array(unknown)) == pytest.approx(area)
