"""The gate: an engine is used only if it gives the answers of the reference, a checkpoint's exact engine.

The figures are kept as a report next to the model's files.
"""

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from image_analysis_common.job_errors import JobError
from image_analysis_common.models import EngineReport, FrozenModel
from image_analysis_common.startup import StartupError
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.cores import has_gpu, has_vnni
from image_analysis_worker.engines.engine import Network, in_one_line
from image_analysis_worker.engines.inputs import Inputs

MAX_CONFIDENCE_DIFFERENCE = 0.02
"""How far the confidence in the reference's label may be off, on average."""

MIN_SPEED_S = 2.0
"""How long an engine's speed is measured, if `is_timed`."""

REPORT = Path("openvino", "report.json")


class Report(FrozenModel):
    """What `optimize` has measured for one revision of a model."""

    revision: str
    has_vnni: bool
    """Whether the CPU that measured it has VNNI. An int8 model gives other answers on a CPU that differs in it."""
    has_gpu: bool = False
    """Whether torch ran on a GPU."""
    images: int
    source: str
    candidates: list[EngineReport]

    def find(self, engine: str, precision: str) -> EngineReport | None:
        """Find an engine's figures."""
        return next(
            (found for found in self.candidates if (found.engine, found.precision) == (engine, precision)), None
        )


def read_report(checkpoint: Checkpoint) -> Report | None:
    """Read what the report next to a checkpoint says of machines like this one.

    None if there is no report, or if the weights or the ONNX model that it was made from have changed.
    """
    try:
        report = Report.model_validate_json((checkpoint.folder / REPORT).read_bytes())
    except (OSError, ValidationError):
        return None
    if checkpoint.has_source and report.revision != checkpoint.revision:
        return None
    counts_torch, counts_int8 = report.has_gpu == has_gpu(), report.has_vnni == has_vnni()
    candidates = [
        found
        for found in report.candidates
        if (counts_torch or found.engine != "torch") and (counts_int8 or found.precision != "int8")
    ]
    return report.model_copy(update={"candidates": candidates})


def judge(candidate: EngineReport, min_agreement: float) -> str | None:
    """Return why an engine may not be used; None if it may, as any may with a `min_agreement` of 0."""
    if min_agreement == 0:
        return None
    if candidate.agreement < min_agreement:
        return f"{candidate.name} agrees on {candidate.agreement:.1%} of the images, MIN_AGREEMENT is {min_agreement}"
    if not candidate.confidence_difference <= MAX_CONFIDENCE_DIFFERENCE:  # NaN is refused, too
        return (
            f"the confidence of {candidate.name} is off by {candidate.confidence_difference:.3f} on average, "
            f"the limit is {MAX_CONFIDENCE_DIFFERENCE}"
        )
    return None


@dataclass(frozen=True)
class Answers:
    """The confidence in every label for every image, (images, labels), and the speed of finding them."""

    scores: NDArray[np.float64]
    images_per_s: float


def decode_all(inputs: Inputs, images: Iterable[bytes]) -> list[NDArray[Any]]:
    """Make a batch of one from each image that can be analyzed.

    Raises:
        StartupError: there is no such image.
    """
    batches = []
    with closing(inputs.decoders.open()) as decoder:
        for image in images:
            try:
                batches.append(inputs.stack([decoder.decode(image)]))
            except JobError:
                continue
    if not batches:
        raise StartupError("None of the images can be analyzed.")
    return batches


def answer(
    network: Network, inputs: Inputs, images: Sequence[NDArray[Any]], *, is_timed: bool, until_s: float = math.inf
) -> Answers:
    """Run a network on all images, in batches if they have one size; repeat it to time it.

    Raises:
        StartupError: the network does not take the images.
        TimeoutError: a batch would start after `until_s` on the monotonic clock.
    """

    def run(batch: NDArray[Any]) -> NDArray[np.float32]:
        return in_one_line(inputs.checkpoint.name, lambda: network.run(batch))

    size = network.batch_size if len({image.shape for image in images}) == 1 else 1
    batches = [np.concatenate(images[first : first + size]) for first in range(0, len(images), size)]
    if is_timed:
        run(batches[0])
    passes, started_s = 0, time.perf_counter()
    while True:
        logits = []
        for batch in batches:
            if time.monotonic() > until_s:
                raise TimeoutError
            logits.append(run(batch))
        passes += 1
        took_s = time.perf_counter() - started_s
        if not is_timed or took_s > MIN_SPEED_S:
            break
    return Answers(inputs.labels.score(np.concatenate(logits)), round(passes * len(images) / took_s, 1))


def compare(network: Network, answers: Answers, reference: Answers) -> EngineReport:
    """Compare a network's answers with the reference's. Scores that are not finite agree with nothing."""
    rows, best = np.arange(len(reference.scores)), reference.scores.argmax(axis=-1)
    is_finite = np.isfinite(answers.scores + reference.scores).all(axis=-1)
    differences = np.where(is_finite, abs(answers.scores[rows, best] - reference.scores[rows, best]), 1)
    return EngineReport(
        engine=network.engine,
        precision=network.precision,
        agreement=float(((answers.scores.argmax(axis=-1) == best) & is_finite).mean()),
        confidence_difference=round(float(differences.mean()), 5),
        images_per_s=answers.images_per_s,
    )
