"""The embeddings of labels are computed once, in bounded batches and within a bound of memory."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from image_analysis_common.job_errors import JobTimeout
from image_analysis_common.models import Question
from image_analysis_worker.engines import embeddings
from image_analysis_worker.engines.embeddings import (
    TEXTS_AT_ONCE,
    LabelEmbeddings,
    Recent,
    Vectors,
    read_embedding,
    write_embedding,
)
from image_analysis_worker.jobs.batching import Embedding
from support.waiting import wait_until


class Tower:
    """Embeds a text as its length and its first letter; fails if two threads enter it."""

    def __init__(self, takes_s: float = 0) -> None:
        self.batches: list[list[str]] = []
        self._takes_s = takes_s
        self._lock = threading.Lock()

    def embed(self, texts: list[str]) -> Vectors:
        assert self._lock.acquire(blocking=False)
        self.batches.append(texts)
        threading.Event().wait(self._takes_s)
        vectors = np.array([[len(text), ord(text[0])] for text in texts], np.float32)
        self._lock.release()
        return vectors


def make_question(labels: Sequence[str], template: str = "{}") -> Question:
    return Question(labels=tuple(labels), hypothesis_template=template)


def test_labels_are_embedded_in_their_template_and_in_their_order() -> None:
    tower = Tower()

    vectors = LabelEmbeddings(tower.embed, timeout_s=10).find(make_question(["cat", "a", "horse"], "a {}."))

    assert tower.batches == [["a cat.", "a a.", "a horse."]]
    assert vectors.tolist() == [[6, 97], [4, 97], [8, 97]]


def test_known_labels_are_not_embedded_again() -> None:
    tower = Tower()
    labels = LabelEmbeddings(tower.embed, timeout_s=10)
    labels.find(make_question(["cat", "dog"]))

    vectors = labels.find(make_question(["dog", "bird", "cat", "dog"]))

    assert tower.batches == [["cat", "dog"], ["bird"]]
    assert vectors.tolist() == [[3, 100], [4, 98], [3, 99], [3, 100]]


def test_many_labels_are_embedded_in_bounded_batches() -> None:
    tower = Tower()
    names = [f"{number} cats" for number in range(200)]

    vectors = LabelEmbeddings(tower.embed, timeout_s=10).find(make_question(names))

    assert {len(batch) for batch in tower.batches} == {TEXTS_AT_ONCE, 200 % TEXTS_AT_ONCE}
    assert [text for batch in tower.batches for text in batch] == names
    assert vectors.shape == (200, 2)


def test_labels_that_take_too_long_fail_the_job_and_are_kept_for_the_next_attempt() -> None:
    tower = Tower(takes_s=0.05)
    labels = LabelEmbeddings(tower.embed, timeout_s=0.08)
    names = [f"{number} cats" for number in range(200)]

    def find() -> Vectors | None:
        with suppress(JobTimeout):
            return labels.find(make_question(names))
        return None

    first = find()
    wait_until(lambda: find() is not None, "all labels are embedded")

    assert first is None
    assert [text for batch in tower.batches for text in batch] == names


def test_several_threads_embed_each_label_once() -> None:
    tower = Tower()
    labels = LabelEmbeddings(tower.embed, timeout_s=10)
    questions = [make_question([f"{number} of 50" for number in range(first, first + 50)]) for first in range(0, 40, 5)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(labels.find, questions))

    texts = [text for batch in tower.batches for text in batch]
    assert len(texts) == len(set(texts)) == 85
    assert [vectors.shape for vectors in found] == [(50, 2)] * len(questions)


def test_memory_of_labels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "TEXT_CACHE_BYTES", 4000)
    tower = Tower()
    labels = LabelEmbeddings(tower.embed, timeout_s=10)
    for number in range(100):
        labels.find(make_question(["cat", f"{number} dogs"]))

    labels.find(make_question(["99 dogs", "cat", "0 dogs"]))

    assert tower.batches[-1] == ["0 dogs"]


def test_those_unused_for_longest_make_room() -> None:
    vector = np.ones(2, np.float32)
    recent = Recent(2, lambda _key, _vector: 1)
    recent.add({"a": vector, "b": vector})
    recent.find(["a"])

    recent.add({"c": vector})

    assert recent.find(["a", "b", "c"]).keys() == {"a", "c"}


def test_embedding_survives_the_cache() -> None:
    vector = np.array([0.6, -0.8], np.float32)

    values = write_embedding(vector)

    assert len(values) == 8
    assert read_embedding(Embedding(values, is_cached=True), 2) == pytest.approx(vector)


@pytest.mark.parametrize("dimension", [1, 3])
def test_embedding_of_another_dimension_is_ignored(dimension: int) -> None:
    values = write_embedding(np.array([0.6, -0.8], np.float32))

    assert read_embedding(Embedding(values, is_cached=True), dimension) is None
