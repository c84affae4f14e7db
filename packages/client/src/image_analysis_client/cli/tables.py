"""Answers for people: one line for each image, the models, a job's status."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.cells import set_cell_size
from rich.table import Table
from rich.text import Text

from image_analysis_client.cli.escaping import visible
from image_analysis_client.cli.rows import Row
from image_analysis_client.responses import AnalysisStatus, Classifier, ModelStatus
from image_analysis_common.models import ZERO_SHOT, JobStatus, Prediction

LABEL_CELLS = 16
"""Width of the labels' column in terminal cells; a longer label moves the rest of its line."""

STYLES = {
    JobStatus.PENDING: "yellow",
    JobStatus.PROCESSING: "cyan",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "red",
}


def image_lines(row: Row, *, all_predictions: bool) -> list[Text]:
    """Describe what became of an image; its name comes last, so that no name is too long."""
    name = visible(row.source)
    if row.result is None:
        return [failure_line(row)]
    best = Prediction(label=row.result.label, confidence=row.result.confidence)
    others = row.result.predictions[1:] if all_predictions else []
    return [
        Text.assemble(_percent(best), "  ", (_label(best), "bold"), "  ", name),
        *(Text.assemble(_percent(other), "  ", _label(other), style="dim") for other in others),
    ]


def failure_line(row: Row) -> Text:
    """Describe an image without a result."""
    reason = row.error.detail if row.error else ""
    return Text.assemble((f"{'failed':>7}", "red"), f"  {visible(row.source)}: {visible(reason)}")


def models_table(models: Iterable[ModelStatus]) -> Table:
    """Show models, the default one first in bold."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("Model", "Labels", "Accuracy", "Device", "Precision", "ms/image", "Workers", "Waiting"):
        table.add_column(name, justify="left" if name in ("Model", "Device", "Precision") else "right")
    for model in models:
        table.add_row(
            Text(
                visible(model.id) + (" (default)" if model.is_default else ""), style="bold" if model.is_default else ""
            ),
            "yours" if model.task == ZERO_SHOT else str(model.labels_count),
            "" if model.accuracy is None else f"{model.accuracy:.1%}",
            Text(visible(model.device)),
            Text(visible(model.precision)),
            f"{model.inference_ms:.1f}",
            Text(str(model.workers), style="" if model.workers else "red"),
            str(model.queue_depth),
        )
    return table


def classifiers_table(classifiers: Iterable[Classifier]) -> Table:
    """Show classifiers, one in each row."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("Classifier", "Labels", "Examples", "Accuracy", "Model", "Trained"):
        table.add_column(name, justify="right" if name in ("Examples", "Accuracy") else "left")
    for classifier in classifiers:
        table.add_row(
            Text(classifier.name),
            Text(visible(", ".join(classifier.labels))),
            str(sum(classifier.examples.values())),
            f"{classifier.accuracy:.1%}",
            Text(visible(classifier.model.id)),
            f"{classifier.trained_at.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def classifier_lines(classifier: Classifier) -> list[str]:
    """Say how good a classifier is, and which labels it takes for one another."""
    total = sum(classifier.examples.values())
    lines = [
        f"{classifier.name} is trained. In cross-validation, {classifier.accuracy:.1%} of {total} images were right."
    ]
    if pair := classifier.most_confused:
        one, other, count = pair
        images = classifier.examples[one] + classifier.examples[other]
        lines.append(f"Most confused: {visible(one)} and {visible(other)}, in {count} of {images} images.")
    return lines


def status_line(status: AnalysisStatus) -> Text:
    """Describe a job in one line."""
    line = Text(f"{status.status:<10}", style=STYLES[status.status])
    line.append(_details(status), style="default")
    line.rstrip()
    return line


def _details(status: AnalysisStatus) -> str:
    if status.result is not None:
        cached = ", from the cache" if status.cached else ""
        return f"  {visible(status.result.label)} {status.result.confidence:.1%}{cached}"
    if status.classifier is not None:
        return f"  {status.classifier.name} {status.classifier.accuracy:.1%}"
    if status.error is not None:
        return f"  {visible(status.error.detail)} ({visible(status.error.code)})"
    if status.queue_position is not None:
        wait_ms = status.estimated_wait_ms
        return f"  place {status.queue_position} in the queue" + (
            "" if wait_ms is None else f", about {wait_ms / 1000:.0f} s"
        )
    return ""


def _percent(prediction: Prediction) -> str:
    return f"{prediction.confidence:7.1%}"


def _label(prediction: Prediction) -> str:
    label = visible(prediction.label)
    return label if len(label) > LABEL_CELLS else set_cell_size(label, LABEL_CELLS)
