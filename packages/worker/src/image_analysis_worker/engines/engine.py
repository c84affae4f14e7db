"""The interface between the worker and the engine that runs its model."""

from collections.abc import Sequence
from typing import Any, Protocol

from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction


class Decoder(Protocol):
    """Makes one input of a batch from an image's bytes; for one thread."""

    def decode(self, body: bytes) -> Any:
        """Make the input.

        Raises:
            JobError: the image cannot be analyzed.
        """


class Engine(Protocol):
    """A loaded model; `TorchEngine` is the implementation."""

    ref: ModelRef

    def open_decoder(self) -> Decoder:
        """Make a decoder; called by each thread that decodes."""

    def classify(self, inputs: Sequence[Any], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Return the `top_k` best predictions of each input, best first, or all if there are fewer; for one thread."""

    def warm_up(self) -> ModelAnnouncement:
        """Run the model until its first, slow calls are done, and describe it."""
