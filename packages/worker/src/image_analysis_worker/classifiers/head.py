"""The head of a classifier: an image's embedding in, predictions out. It needs numpy alone."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Self, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.classifiers import NONE_OF_THESE
from image_analysis_common.models import Prediction

Vectors: TypeAlias = NDArray[np.float32]
"""Embeddings of length 1, (N, D), or one of them, (D,)."""

NEIGHBORS = 3
"""How many of the nearest examples say how far away an image is: one alone could be an accident."""

SMALLEST_DISTANCE = 1e-6
"""float32 cannot tell smaller ones from 0."""

DIGITS = 16


@dataclass(frozen=True)
class Head:
    """What was learned from examples, and the examples' embeddings."""

    weights: NDArray[np.float64]
    """(L, D)"""
    bias: NDArray[np.float64]
    """(L,)"""
    center: NDArray[np.float64]
    """(D,), subtracted from an embedding first: those of similar images differ by little, and weights are large."""
    vectors: Vectors
    """(N, D)"""
    none: NDArray[np.float64]
    """(2,): the logarithm of the distance at which `none of these` gets 0.5, and how fast it rises there."""

    def rank(self, labels: Sequence[str], vector: Vectors, top_k: int) -> list[Prediction]:
        """Return the `top_k` best of the labels and `none of these` for an embedding (D,), best first."""
        logits = self.weights @ (vector - self.center) + self.bias
        powers = np.exp(logits - logits.max())
        outside = self.doubt(vector)
        scores = np.append((1 - outside) * powers / powers.sum(), outside)
        names = [*labels, NONE_OF_THESE]
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [Prediction(label=names[index], confidence=min(float(scores[index]), 1.0)) for index in best]

    def doubt(self, vector: Vectors) -> float:
        """Return how sure it is, from 0 to 1, that an image (D,) is none of the labels."""
        middle, slope = self.none
        return float(0.5 * (1 + np.tanh(slope * (np.log(measure(vector[None], self.vectors)[0]) - middle) / 2)))

    @property
    def dimension(self) -> int:
        return len(self.center)

    def digest(self, texts: Sequence[str]) -> str:
        """Return 16 hex digits that differ between heads, and between lists of texts."""
        found = hashlib.sha256(json.dumps(list(texts)).encode())
        for field in fields(self):
            found.update(getattr(self, field.name).tobytes())
        return found.hexdigest()[:DIGITS]

    def pack(self) -> bytes:
        """Write the arrays in numpy's format."""
        written = BytesIO()
        np.savez(written, **{field.name: getattr(self, field.name) for field in fields(self)})
        return written.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Read what `pack` wrote.

        Raises:
            ValueError: it is damaged, or of another release.
        """
        try:
            with np.load(BytesIO(packed), allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (KeyError, OSError, EOFError, BadZipFile, NotImplementedError) as error:
            raise ValueError("these are not the arrays of a head") from error


def measure(vectors: Vectors, examples: Vectors) -> NDArray[np.float64]:
    """Return the distance, (N,), of embeddings (N, D) from examples (M, D): 1 minus the mean cosine of the nearest."""
    cosines = vectors.astype(np.float64) @ examples.T.astype(np.float64)
    nearest = np.partition(cosines, -min(NEIGHBORS, cosines.shape[1]), axis=1)[:, -NEIGHBORS:]
    return np.asarray(np.maximum(1 - nearest.mean(axis=1), SMALLEST_DISTANCE))
