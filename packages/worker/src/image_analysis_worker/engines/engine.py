"""What the worker asks of a model."""

from collections.abc import Sequence
from typing import Any, Protocol

from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction


class Decoder(Protocol):
    """What turns an image's bytes into one input of a batch; for one thread."""

    def decode(self, body: bytes) -> Any:
        """Make the input; a JobError says why there is none."""


class Engine(Protocol):
    """What the worker asks of a model; `TorchEngine` is the one that it ships with."""

    ref: ModelRef

    def open_decoder(self) -> Decoder:
        """Make a decoder; called by each thread that decodes."""

    def classify(self, inputs: Sequence[Any], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Give each input's `top_k` best labels, best first, or all of fewer; called by one thread."""

    def warm_up(self) -> ModelAnnouncement:
        """Make the first call the caller's, and say what the model is."""
