"""Embeddings that are kept: those of labels in this process, those of images in the cache."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from sys import getsizeof
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.job_errors import JobTimeout
from image_analysis_common.models import Question
from image_analysis_worker.jobs.batching import Embedding

TEXT_CACHE_BYTES = 64 * 1024**2
"""The most memory for the embeddings of labels: about 20,000 labels of a base-size model."""

TEXTS_AT_ONCE = 16
"""How many texts go through the tower together; between two such batches, other jobs take turns."""

MAX_LENGTH_ERROR = 0.01
"""How far the length of an embedding in the cache may be from 1. Any other is damaged."""

Vectors: TypeAlias = NDArray[np.float32]
"""Embeddings of length 1, (B, D), or one of them, (D,)."""


class Recent:
    """The embeddings that were used last, within a bound; for one thread at a time."""

    def __init__(self, limit: int, size: Callable[[str, Vectors], int]) -> None:
        self._limit = limit
        self._size = size
        self._used = 0
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    def find(self, keys: Iterable[str]) -> dict[str, Vectors]:
        """Return the embeddings of those keys that have one."""
        found = {key: vector for key in keys if (vector := self._vectors.get(key)) is not None}
        for key in found:
            self._vectors.move_to_end(key)
        return found

    def add(self, vectors: dict[str, Vectors]) -> None:
        """Add embeddings that are not there; those unused for longest make room."""
        for key, vector in vectors.items():
            self._vectors[key] = vector
            self._used += self._size(key, vector)
        while self._used > self._limit:
            self._used -= self._size(*self._vectors.popitem(last=False))


class LabelEmbeddings:
    """The embeddings of labels, each computed once while it is in use; thread-safe."""

    def __init__(self, embed: Callable[[list[str]], Vectors], *, timeout_s: float) -> None:
        """Compute with `embed`, by one thread at a time; the labels of one question must not take longer."""
        self._embed = embed
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._recent = Recent(TEXT_CACHE_BYTES, lambda text, vector: getsizeof(text) + getsizeof(vector))

    def find(self, question: Question) -> Vectors:
        """Return the embeddings of a question's labels, (labels, D).

        Raises:
            JobTimeout: they take too long. Those that were computed are kept.
        """
        # Not `str.format`: a field could read any attribute.
        texts = [question.hypothesis_template.replace("{}", label) for label in question.labels]
        until_s = time.monotonic() + self._timeout_s
        found: dict[str, Vectors] = {}
        while missing := [text for text in dict.fromkeys(texts) if text not in found]:
            with self._lock:
                found |= self._recent.find(missing)
                new = [text for text in missing if text not in found][:TEXTS_AT_ONCE]
                if not new:
                    break
                if time.monotonic() > until_s:
                    raise JobTimeout(
                        f"The labels took longer than {self._timeout_s:g} s: send fewer, or send them again."
                    )
                # Copies, because a row of an array keeps the whole array in memory.
                computed = {text: vector.copy() for text, vector in zip(new, self._embed(new), strict=True)}
                self._recent.add(computed)
                found |= computed
        return np.stack([found[text] for text in texts])

    def check(self) -> None:
        """Compute an embedding, which raises anything if the tower is broken."""
        with self._lock:
            self._embed(["a photo"])


def normalize(features: NDArray[np.float32]) -> Vectors:
    """Give vectors, (B, D), the length 1; zeros, which have no direction, stay zeros."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def write_embedding(vector: Vectors) -> bytes:
    """Write the embedding (D,) of an image for the cache: 4 bytes for each number."""
    return vector.astype("<f4").tobytes()


def read_embedding(embedding: Embedding | None, dimension: int) -> Vectors | None:
    """Read an embedding (D,) from the cache; None if there is none, or if it is damaged."""
    if embedding is None or len(embedding.values) != 4 * dimension:
        return None
    vector = np.frombuffer(embedding.values, "<f4").astype(np.float32)
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return vector if abs(length - 1) <= MAX_LENGTH_ERROR else None
