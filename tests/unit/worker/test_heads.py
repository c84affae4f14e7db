"""The head of a classifier: what it learns, when it doubts, and what is kept of it."""

import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from image_analysis_common.classifiers import NONE_OF_THESE
from image_analysis_common.job_errors import JobTimeout
from image_analysis_worker.classifiers.fit import STRENGTHS, train
from image_analysis_worker.classifiers.head import Head, measure
from support.classifiers import FOREVER_S, make_vectors

THREE = [label for label in ("cat", "dog", "tree") for _ in range(12)]
TWO = THREE[:24]


@pytest.mark.parametrize("labels", [TWO, THREE], ids=["two labels", "three labels"])
def test_new_images_get_the_label_of_those_they_resemble(labels: list[str]) -> None:
    trained = train(make_vectors(labels), labels, until_s=FOREVER_S)

    answers = [trained.head.rank(trained.labels, vector, 5) for vector in make_vectors(labels, seed=1)]

    assert [answer[0].label for answer in answers] == labels
    assert {found.label for found in answers[0]} == {*labels, NONE_OF_THESE}
    assert [sum(found.confidence for found in answer) for answer in answers] == pytest.approx([1] * len(labels))


def test_labels_share_their_confidence_like_a_logistic_regression_by_another_solver() -> None:
    """The reference is fitted on the embeddings as they are, with the same penalty in their units."""
    labels, vectors = THREE, make_vectors(THREE, noise=0.8)
    trained = train(vectors, labels, until_s=FOREVER_S)
    scale = np.sqrt(np.square(vectors - vectors.mean(axis=0)).sum(axis=1).mean())
    strengths = [
        strength
        for strength in STRENGTHS
        if np.allclose(_shares(trained.head, vectors), _reference(vectors, labels, strength * 36 / scale**2), atol=1e-4)
    ]

    assert len(strengths) == 1


def _shares(head: Head, vectors: np.ndarray) -> np.ndarray:
    answers = [{p.label: p.confidence for p in head.rank(["cat", "dog", "tree"], vector, 9)} for vector in vectors]
    return np.array([[a[label] / (1 - a[NONE_OF_THESE]) for label in ("cat", "dog", "tree")] for a in answers])


def _reference(vectors: np.ndarray, labels: list[str], strength: float) -> np.ndarray:
    exact = vectors.astype(np.float64)
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    return np.asarray(model.fit(exact, labels).predict_proba(exact))


def test_image_of_no_label_is_none_of_these() -> None:
    trained = train(make_vectors(THREE), THREE, until_s=FOREVER_S)

    strangers = make_vectors(["car", "ship", "moon", "letter"] * 5)

    answers = [trained.head.rank(trained.labels, vector, 1)[0].label for vector in strangers]
    assert answers.count(NONE_OF_THESE) > 15


def test_few_of_the_examples_are_doubted() -> None:
    trained = train(make_vectors(THREE), THREE, until_s=FOREVER_S)

    doubts = [trained.head.doubt(vector) for vector in make_vectors(THREE, seed=3)]

    assert sum(doubt < 0.5 for doubt in doubts) >= 33
    assert all(0 <= doubt <= 1 for doubt in doubts)


def test_equal_examples_of_each_label_make_a_head() -> None:
    labels = TWO
    vectors = make_vectors(labels, noise=0)

    trained = train(vectors, labels, until_s=FOREVER_S)

    assert trained.accuracy == 1
    assert [trained.head.rank(trained.labels, vector, 1)[0].label for vector in vectors] == labels


def test_labels_that_cannot_be_told_apart_are_confused() -> None:
    vectors = make_vectors(["same"] * 40)
    labels = ["one", "other"] * 20

    trained = train(vectors, labels, until_s=FOREVER_S)

    assert trained.accuracy < 0.8
    assert trained.confusion.labels == ["one", "other"]
    assert np.sum(trained.confusion.counts, axis=1).tolist() == [20, 20]


def test_same_examples_give_the_same_head() -> None:
    first, second = (train(make_vectors(THREE), THREE, until_s=FOREVER_S) for _ in range(2))
    other = train(make_vectors(THREE, seed=5), THREE, until_s=FOREVER_S)

    assert first.head.digest(first.labels) == second.head.digest(second.labels)
    assert first.head.digest(first.labels) != other.head.digest(other.labels)
    assert first.head.digest(first.labels) != first.head.digest(["a", "b", "c"])


def test_head_is_the_same_after_it_was_written() -> None:
    trained = train(make_vectors(THREE), THREE, until_s=FOREVER_S)

    read = Head.unpack(trained.head.pack())

    assert read.digest(trained.labels) == trained.head.digest(trained.labels)
    assert read.dimension == 16


def test_damaged_head_is_refused() -> None:
    packed = train(make_vectors(TWO), TWO, until_s=FOREVER_S).head.pack()

    method = packed.index(b"PK\x01\x02") + 10  # of compression, in the directory of the archive

    for damaged in (packed[: len(packed) // 2], packed[:method] + b"\x63" + packed[method + 1 :]):
        with pytest.raises(ValueError, match="not the arrays"):
            Head.unpack(damaged)


def test_distance_counts_the_nearest_three() -> None:
    examples = np.eye(4, dtype=np.float32)

    assert measure(examples[:1], examples) == pytest.approx([1 - 1 / 3])
    assert measure(examples[:1], examples[:1]) == pytest.approx([1e-6])


def test_training_ends_when_its_time_is_up() -> None:
    with pytest.raises(JobTimeout):
        train(make_vectors(TWO), TWO, until_s=time.monotonic() - 1)
