"""What every network of a checkpoint shares: its files, labels and decoders, and how batches are made of its inputs."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.models import ModelRef
from image_analysis_worker.decoding.decode import PREPROCESSING_VERSION
from image_analysis_worker.decoding.decoder import Decoders, Pixels
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.images import draw_blank
from image_analysis_worker.engines.labels import Labels


@dataclass(frozen=True)
class Inputs:
    """What every network of a checkpoint shares: its files, its labels, and its decoders."""

    checkpoint: Checkpoint
    labels: Labels
    decoders: Decoders

    def stack(self, inputs: Sequence[Pixels]) -> NDArray[Any]:
        """Make one batch, (B, 3, H, W).

        Raises:
            ValueError: the inputs differ in size.
        """
        dtype = self.decoders.preparation.dtype
        return np.stack([np.frombuffer(pixels.values, dtype).reshape(pixels.shape) for pixels in inputs])

    def stack_by_size(self, inputs: Sequence[Pixels]) -> Iterator[tuple[list[int], NDArray[Any]]]:
        """Make one batch of the inputs of each size; give it with their places in `inputs`."""
        places = dict[tuple[int, ...], list[int]]()
        for place, pixels in enumerate(inputs):
            places.setdefault(pixels.shape, []).append(place)
        for alike in places.values():
            yield alike, self.stack([inputs[place] for place in alike])

    def describe(self, precision: str) -> ModelRef:
        """Name the checkpoint's results in a precision."""
        return ModelRef(
            id=self.checkpoint.name,
            revision=self.checkpoint.revision,
            preprocessing=PREPROCESSING_VERSION,
            precision=precision,
        )

    @cached_property
    def blank(self) -> Pixels:
        """A blank image, decoded."""
        with closing(self.decoders.open()) as decoder:
            return decoder.decode(draw_blank())
