"""Classifiers from examples: the examples are sent as images, and the training names their jobs."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from os import PathLike
from uuid import UUID

from image_analysis_client import requests
from image_analysis_client.answers import failure_of, parse
from image_analysis_client.cancelling import cancel_training
from image_analysis_client.deadline import Deadline
from image_analysis_client.errors import BadRequest, ExamplesFailed, NotFound
from image_analysis_client.many import classify_many
from image_analysis_client.requests import Request
from image_analysis_client.responses import AnalysisStatus, Classifier, TrainingJob
from image_analysis_client.session import Session
from image_analysis_client.values import Examples, Options, Outcome, Source
from image_analysis_common.classifiers import EXAMPLES_OF_LABEL, LABELS
from image_analysis_common.job_errors import TrainingNotSupported
from image_analysis_common.models import ZERO_SHOT

MAX_VALUES = 19_800
"""How many values the examples of one request may have: the API reads 20,000 in JSON."""


@dataclass(frozen=True)
class Training:
    """What a classifier is trained on: these examples alone, or `adds` them to those that it has."""

    name: str
    examples: Examples
    model: str | None = None
    adds: bool = False
    on_outcome: Callable[[Outcome], None] | None = None


async def teach(session: Session, training: Training, timeout_s: float | None) -> Classifier:
    """Send the examples, train, and wait `timeout_s` at most for the end of the training; an interrupt cancels it.

    Raises:
        ValueError: there are too few or too many examples or labels; nothing was sent.
        BadRequest: the model's workers cannot train; nothing was sent.
        ExamplesFailed: some of the examples cannot be used; nothing was trained.
        JobFailed, JobCancelled, WaitTimeout: the training has not made a classifier.
    """
    examples = list_examples(training.examples)
    check_counts(Counter(label for label, _ in examples), adds=training.adds)
    model = training.model
    try:  # before the images are sent: the name and the key are right, and there are classifiers in this service
        known = await session.classifier(training.name)
    except NotFound as error:
        if training.adds or error.code != "classifier_not_found":
            raise
    else:
        model = model or (known.model.id if training.adds else None)
    jobs = await _send(session, training, examples, model)
    named = [{"label": label, "job_id": str(job_id)} for (label, _), job_id in zip(examples, jobs, strict=True)]
    request = requests.train(training.name, named, model, adds=training.adds)
    ended = await _train(session, request, timeout_s)
    if ended.classifier is None:
        raise failure_of(ended)
    return ended.classifier


def list_examples(examples: Examples) -> list[tuple[str, Source | UUID]]:
    """Return the examples as pairs.

    Raises:
        TypeError: there is one image where a label needs several.
    """
    if not isinstance(examples, Mapping):
        return list(examples)
    for label, images in examples.items():
        if isinstance(images, str | bytes | PathLike) or hasattr(images, "read"):
            raise TypeError(f"The images of the label {label!r} must be a list, also if there is only one.")
    return [(label, image) for label, images in examples.items() for image in images]


def check_counts(counts: Mapping[str, int], *, adds: bool) -> None:
    """Check the number of labels and of each label's examples; any few can be added to a classifier.

    Raises:
        ValueError: there are too few or too many.
    """
    total, values = sum(counts.values()), sum(count * count_values(label) for label, count in counts.items())
    if values > MAX_VALUES:
        raise ValueError(
            f"There are {total} examples: send {total * MAX_VALUES // values} at most, then add the other ones."
        )
    if adds:
        return
    if len(counts) not in LABELS:
        raise ValueError(f"A classifier needs {LABELS[0]} to {LABELS[-1]} labels, not {len(counts)}.")
    for label, count in counts.items():
        if count not in EXAMPLES_OF_LABEL:
            least, most = EXAMPLES_OF_LABEL[0], EXAMPLES_OF_LABEL[-1]
            raise ValueError(f"The label {label!r} needs {least} to {most} examples, not {count}.")


def count_values(label: str) -> int:
    """Return how many values the API counts in an example: 3, and each comma and bracket of its label."""
    return 3 + sum(map(label.count, ",[{"))


async def _train(session: Session, request: Request, timeout_s: float | None) -> AnalysisStatus:
    """Submit a training and wait for its end; an interrupt cancels it, an error does not."""
    job_id = None
    try:
        job_id = parse(await session.call(request), TrainingJob).job_id
        return await session.end(job_id, Deadline(timeout_s))
    except (Exception, GeneratorExit):
        raise
    except BaseException:
        with session.channel.closing():
            await cancel_training(session, request, job_id)
        raise


async def _send(
    session: Session, training: Training, examples: list[tuple[str, Source | UUID]], model: str | None
) -> list[UUID]:
    """Have the service embed the images, in batches, and return the job of each example.

    A training names these jobs: a request with all the images could be larger than the service accepts.
    """
    jobs = {place: image for place, (_, image) in enumerate(examples) if isinstance(image, UUID)}
    places: defaultdict[int, deque[int]] = defaultdict(deque)
    sources: list[Source] = []
    for place, (_, image) in enumerate(examples):
        if not isinstance(image, UUID):
            places[id(image)].append(place)
            sources.append(image)
    failed: list[tuple[str, Outcome]] = []
    if sources:
        options = await _choose_options(session, model)
        async with aclosing(classify_many(session, sources, options)) as outcomes:
            async for outcome in outcomes:
                if training.on_outcome:
                    training.on_outcome(outcome)
                place = places[id(outcome.source)].popleft()
                if outcome.error or outcome.job_id is None:
                    failed.append((examples[place][0], outcome))
                else:
                    jobs[place] = outcome.job_id
    if failed:
        raise ExamplesFailed(failed, len(examples))
    return [jobs[place] for place in range(len(examples))]


async def _choose_options(session: Session, model: str | None) -> Options:
    """Return how the images are analyzed: for their embedding; a zero-shot model needs labels, any will do.

    Raises:
        BadRequest: the model's workers cannot train.
    """
    options: Options = {"embedding": True, "top_k": 1}
    if model is not None:
        options["model"] = model
    for known in await session.models():
        if known.id == model or (model is None and known.is_default):
            if not known.trains:
                refusal = TrainingNotSupported(model=known.id)
                raise BadRequest(refusal.code, refusal.detail, refusal.status)
            if known.task == ZERO_SHOT:
                options["labels"] = ["image"]
    return options
