"""Trains a head on embeddings: L2-regularized logistic regression of scikit-learn, chosen by cross-validation.

Every example is also answered by heads that were trained without it. These answers choose the regularization, give the
accuracy and the confusion table, and say how far from the others an image of the labels is: `none of these` begins
beyond that.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.classifiers import Confusion
from image_analysis_common.job_errors import JobTimeout
from image_analysis_worker.classifiers.head import Head, Vectors, measure

FOLDS = 5
SEED = 20
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0)
"""Candidates for scikit-learn's C, for each example. The embeddings are centered and scaled to a mean square of 1."""

MAX_ITERATIONS = 1000
TOLERANCE = 1e-6
COARSE = 1e-4
"""The tolerance while strengths are compared: that is most of the work."""

USUAL_QUANTILE, USUAL_DOUBT = 0.95, 0.05
"""This share of the examples is at most as sure as this to be none of the labels."""

SMALLEST_STEP = 0.1
"""The least logarithm between the median distance and that of the quantile, where nearly all examples are alike."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A head, and what the examples say about it."""

    labels: list[str]
    head: Head
    accuracy: float
    confusion: Confusion


def can_train() -> bool:
    """Return whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def import_libraries() -> None:
    """Import what training needs: that takes a second or more, and memory that most workers never need."""
    import_module("sklearn.linear_model")
    import_module("sklearn.model_selection")


def train(vectors: Vectors, labels: Sequence[str], *, until_s: float) -> Trained:
    """Train on embeddings (N, D) with the label of each: at least `FOLDS` of each label. The same input, the same head.

    Raises:
        JobTimeout: the clock of `time.monotonic` is past `until_s`.
    """
    from threadpoolctl import threadpool_limits

    names = list(dict.fromkeys(labels))
    truth = np.array([names.index(label) for label in labels])
    center = vectors.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(np.square(vectors - center).sum(axis=1).mean())) or 1.0
    scaled = (vectors - center) / scale
    with threadpool_limits(limits=1):  # The model needs the other cores.
        folds = list(_split(vectors, truth))
        strength, answers = _choose(scaled, truth, folds, until_s)
        weights, bias = _fit(scaled, truth, strength, is_exact=True)
    guessed = answers.argmax(axis=1)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth, guessed), 1)
    head = Head(weights / scale, bias, center, vectors, _calibrate(vectors, folds))
    return Trained(names, head, float((guessed == truth).mean()), Confusion(labels=names, counts=counts.tolist()))


def _split(vectors: Vectors, truth: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    from sklearn.model_selection import StratifiedKFold

    yield from StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(vectors, truth)


def _choose(
    scaled: NDArray[np.float64], truth: Numbers, folds: Sequence[tuple[Numbers, Numbers]], until_s: float
) -> tuple[float, NDArray[np.float64]]:
    """Return the strength whose answers (N, L) are the best, and these; none is tried after one that is worse."""
    best, least = (STRENGTHS[0], np.empty(0)), np.inf
    for strength in STRENGTHS:
        answers = _answer(scaled, truth, folds, strength, until_s)
        if (surprise := _surprise(answers, truth)) >= least:
            break
        best, least = (strength, answers), surprise
    return best


def _fit(
    scaled: NDArray[np.float64], truth: Numbers, strength: float, *, is_exact: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights (L, D) and the bias (L,) of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength * len(truth),
        solver="newton-cg" if is_exact else "lbfgs",  # lbfgs is faster with many labels, but stops early
        max_iter=MAX_ITERATIONS,
        tol=TOLERANCE if is_exact else COARSE,
    )
    fitted = model.fit(scaled, truth)
    weights, bias = fitted.coef_, fitted.intercept_
    if len(weights) == 1:  # Of two labels it only has the second.
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights, bias


def _answer(
    scaled: NDArray[np.float64],
    truth: Numbers,
    folds: Sequence[tuple[Numbers, Numbers]],
    strength: float,
    until_s: float,
) -> NDArray[np.float64]:
    """Return the confidences, (N, L), of heads that were trained without the example in question."""
    answers = np.zeros((len(truth), int(truth.max()) + 1))
    for known, others in folds:
        if time.monotonic() > until_s:
            raise JobTimeout("The training took too long: send fewer examples.")
        weights, bias = _fit(scaled[known], truth[known], strength, is_exact=False)
        logits = scaled[others] @ weights.T + bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers[others] = powers / powers.sum(axis=1, keepdims=True)
    return answers


def _surprise(answers: NDArray[np.float64], truth: Numbers) -> float:
    """Return the mean negative log-likelihood."""
    right = answers[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def _calibrate(vectors: Vectors, folds: Sequence[tuple[Numbers, Numbers]]) -> NDArray[np.float64]:
    """Find where `none of these` begins, from the distances of the examples from those of the other folds.

    It gets `USUAL_DOUBT` at the distance of the quantile, and 0.5 half as far again, as the logarithm counts from the
    median.
    """
    distances = np.concatenate([measure(vectors[others], vectors[known]) for known, others in folds])
    median, usual = np.log(np.quantile(distances, (0.5, USUAL_QUANTILE)))
    step = max(usual - median, SMALLEST_STEP) / 2
    return np.array([usual + step, np.log(1 / USUAL_DOUBT - 1) / step])
