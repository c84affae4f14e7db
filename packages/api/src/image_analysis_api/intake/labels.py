"""The labels of a zero-shot question and its template: what they may be, and how they are read from text."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

MAX_LABELS = 200
MAX_LABEL_CHARACTERS = 256
MAX_LABELS_BYTES = 8000
"""Of all labels together: each job's record in Redis holds them."""

MAX_TEMPLATE_CHARACTERS = 256

LABELS = "labels"
LISTS = (LABELS, "candidate_labels")
"""The options that are lists, which a form or a query may give more than once."""

LABELS_RULE = (
    f"1 to {MAX_LABELS} different texts of 1 to {MAX_LABEL_CHARACTERS} characters, {MAX_LABELS_BYTES} bytes in all, "
    "without control characters"
)
TEMPLATE_RULE = (
    f"a text of up to {MAX_TEMPLATE_CHARACTERS} characters with {{}} exactly once, where the label goes, "
    "and no other braces or control characters"
)
_LABEL = r"^[^\x00-\x1f\x7f-\x9f]*$"
_TEMPLATE = r"^[^{}\x00-\x1f\x7f-\x9f]*\{\}[^{}\x00-\x1f\x7f-\x9f]*$"


def _check_together(labels: list[str]) -> list[str]:
    is_too_long = sum(len(label.encode()) for label in labels) > MAX_LABELS_BYTES
    if is_too_long or len(set(labels)) < len(labels):
        raise PydanticCustomError("labels", "They are too long, or two are equal")  # `explain` names the rule
    return labels


Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_LABEL_CHARACTERS, pattern=_LABEL)
]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS), AfterValidator(_check_together)]
Template = Annotated[str, StringConstraints(max_length=MAX_TEMPLATE_CHARACTERS, pattern=_TEMPLATE)]


def split_labels(texts: Sequence[str]) -> list[str]:
    """Read the labels of a form or a query: one text is split at its commas; each of several texts is one label.

    Empty texts are no labels. So a single label with a comma is sent together with an empty text.
    """
    if len(texts) == 1:
        return texts[0].split(",") if texts[0] else []
    return [text for text in texts if text]
