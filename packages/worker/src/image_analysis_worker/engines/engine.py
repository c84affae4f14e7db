"""What the worker asks of a model."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction


class Model(Protocol):
    """What the worker asks of a model; `Classifier` is the one that it ships with."""

    ref: ModelRef
    input_px: int

    def prepare(self, image: Image.Image) -> Any:
        """Turn an upright RGB image into one input of a batch; called by several threads."""

    def classify(self, inputs: Sequence[Any], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Give each input's `top_k` best labels, best first, or all of fewer; called by one thread."""

    def warm_up(self) -> ModelAnnouncement:
        """Make the first call the caller's, and say what the model is."""
