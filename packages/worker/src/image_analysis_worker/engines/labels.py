"""A model's labels, and the ranking of them by a network's logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.models import Prediction
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.timm import is_timm


@dataclass(frozen=True)
class Labels:
    """The labels in the order of the logits."""

    names: list[str]
    is_exclusive: bool
    """Whether an image has exactly one of them."""

    @classmethod
    def read(cls, config: Mapping[str, Any], model: str) -> "Labels":
        """Read the labels from a checkpoint's configuration.

        Raises:
            StartupError: they do not have the numbers 0, 1, 2 and so on, or the model gives numbers, not labels.
        """
        if config.get("problem_type") == "regression":
            raise StartupError(f"{model} is a regression model: it gives numbers, not labels.")
        named = config.get("id2label") or (_name_of_timm(config, model) if is_timm(config) else None)
        named = named or {index: f"LABEL_{index}" for index in range(config.get("num_labels") or 2)}
        try:
            names = {int(index): str(label) for index, label in dict(named).items()}
        except (TypeError, ValueError) as error:
            raise StartupError(f"{model}: id2label in config.json does not map numbers to labels.") from error
        if missing := sorted(set(range(len(named))) - names.keys()):
            raise StartupError(
                f"{model}: id2label in config.json has no label {missing[0]}: "
                f"its {len(named)} labels need the numbers 0 to {len(named) - 1}."
            )
        # As in transformers' pipeline: softmax if the labels exclude each other, a sigmoid for each label otherwise.
        is_exclusive = config.get("problem_type") != "multi_label_classification" and len(names) > 1
        return cls([names[index] for index in range(len(names))], is_exclusive)

    def score(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Turn logits (B, labels) into confidences from 0 to 1."""
        exact = logits.astype(np.float64)
        if not self.is_exclusive:
            return np.asarray(0.5 * (1 + np.tanh(exact / 2)))
        powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))

    def rank(self, logits: NDArray[np.float32], top_k: int) -> list[list[Prediction]]:
        """Return the `top_k` best predictions of each row of logits, best first, or all if there are fewer."""
        scores = self.score(logits)
        best = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
        confidences = np.take_along_axis(scores, best, axis=-1)
        return [
            [
                Prediction(label=self.names[index], confidence=min(confidence, 1.0))
                for index, confidence in zip(*row, strict=True)
            ]
            for row in zip(best.tolist(), confidences.tolist(), strict=True)
        ]


def check_timm(model: str) -> None:
    """Check that timm is installed.

    Raises:
        StartupError: it is not.
    """
    if not find_spec("timm"):
        raise StartupError(
            f"{model} is a timm checkpoint: install timm, or convert it where timm is installed: just optimize {model}."
        )


def _name_of_timm(config: Mapping[str, Any], model: str) -> dict[int, str]:
    """Name the labels of a timm checkpoint: its configuration's, or those of the ImageNet that timm recognizes."""
    if names := config.get("label_names"):
        return dict(enumerate(names))
    check_timm(model)
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if not (subset := infer_imagenet_subset(dict(config))):
        return {index: f"LABEL_{index}" for index in range(config.get("num_classes") or 0)}
    imagenet = ImageNetInfo(subset)
    return {index: imagenet.index_to_description(index) for index in range(imagenet.num_classes())}
