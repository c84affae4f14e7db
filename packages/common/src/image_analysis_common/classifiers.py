"""Classifiers from examples: what clients see of them, and the plan of a training."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from pydantic import Field

from image_analysis_common.job_errors import NotEnoughExamples, TooManyExamples
from image_analysis_common.models import FrozenModel, ModelRef

NONE_OF_THESE = "none of these"
"""The answer for an image that resembles no example; no label may have this name."""

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,63}$"
LABELS = range(2, 51)
EXAMPLES_OF_LABEL = range(5, 201)
"""How many labels a classifier has, and how many examples each of them."""

_NAME = re.compile(NAME_PATTERN.removesuffix("$"))


def is_classifier_name(name: str) -> bool:
    """Return whether a classifier can have this name."""
    return _NAME.fullmatch(name) is not None


def check_examples(labels: Iterable[str]) -> None:
    """Check the labels of all examples of a classifier.

    Raises:
        NotEnoughExamples, TooManyExamples: there are too few or too many labels, or examples of a label.
    """
    counts = Counter(labels)
    if len(counts) < LABELS.start:
        raise NotEnoughExamples(f"A classifier needs at least {LABELS.start} labels: send examples of another label.")
    if len(counts) >= LABELS.stop:
        raise TooManyExamples(f"There are {len(counts)} labels, and the limit is {LABELS.stop - 1}: send fewer.")
    for label, count in counts.items():
        if count < EXAMPLES_OF_LABEL.start:
            raise NotEnoughExamples(label=label, count=count, least=EXAMPLES_OF_LABEL.start)
        if count >= EXAMPLES_OF_LABEL.stop:
            raise TooManyExamples(label=label, count=count, limit=EXAMPLES_OF_LABEL.stop - 1)


def is_same_model(one: ModelRef, other: ModelRef) -> bool:
    """Return whether embeddings of two models can be compared: only their precision may differ."""
    return one.model_copy(update={"precision": other.precision}) == other


class Confusion(FrozenModel):
    """How often the examples of each label were taken for each label, by a head trained without them."""

    labels: list[str]
    counts: list[list[int]] = Field(description="One row for each true label, one column for each answer")


class Classifier(FrozenModel):
    """A classifier with your own labels, trained on examples."""

    name: str = Field(pattern=NAME_PATTERN, examples=["products"])
    labels: list[str]
    examples: dict[str, int] = Field(description="How many examples each label has")
    model: ModelRef = Field(description="The model that embeds its images; it answers for this revision alone")
    accuracy: float = Field(description="Share of the examples recognized if left out of the training", ge=0, le=1)
    confusion: Confusion
    trained_at: datetime
    training_ms: float = Field(description="Time of the training, once every example was embedded, in milliseconds")


class ClassifierRef(FrozenModel):
    """What a job is answered by: one version of one classifier."""

    name: str
    version: str
    """16 hex digits that differ between classifiers, and between trainings with different examples or results."""


class Training(FrozenModel):
    """The classifier that a job trains: on its examples alone, or on these and those that it has (`adds`)."""

    name: str
    adds: bool = False


class Example(FrozenModel):
    """One image of a label: its embedding, or the job that computes it."""

    label: str
    image_hash: str
    """SHA-256: the same image with another label is corrected, not added."""
    embedding: str | None = None
    """Little-endian float32, in base64. Without it and a job, the image is an example of the classifier already."""
    job_id: str | None = None


class TrainingPlan(FrozenModel):
    """What a training needs to know; it lies where an ordinary job has its image."""

    examples: tuple[Example, ...]
    model: ModelRef | None = None
    """Whose embeddings the examples hold; None if no worker has announced it, and then they hold none."""
    max_classifiers: int
    max_bytes: int
    """The most classifiers of the owner, and their bytes together."""
