"""Trains classifiers: images among the examples become ordinary jobs, and one more job waits for them and trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from redis.asyncio import Redis

from image_analysis_api.intake.examples import Examples, LabeledImage, to_submission
from image_analysis_api.intake.image import ImageReader
from image_analysis_api.intake.offload import run
from image_analysis_api.intake.schemas import Options
from image_analysis_api.jobs.acceptance import Acceptance
from image_analysis_api.jobs.batches import BatchReader, read_all
from image_analysis_api.jobs.classifier_records import ClassifierRecords, KnownClassifier
from image_analysis_api.jobs.example_records import Embeddings, find_examples
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.queue import NewJob, new_job
from image_analysis_api.outbound.fetcher import Hold
from image_analysis_common.classifiers import Example, Training, TrainingPlan, check_examples
from image_analysis_common.errors import ServiceError
from image_analysis_common.images import image_digest
from image_analysis_common.job_errors import (
    ClassifierNotFound,
    EmbeddingsNotSupported,
    TooManyClassifiers,
    TrainingNotSupported,
)
from image_analysis_common.models import ZERO_SHOT, ModelAnnouncement, Question

ANY_QUESTION = Question(labels=("image",))
"""What a zero-shot model is asked about an example, of which only the embedding is needed."""

EXAMPLE_BYTES = 200
"""About what an example takes in a plan, besides its embedding."""


@dataclass(frozen=True)
class TrainingParts:
    """The parts of the service that a training needs."""

    redis: Redis
    image_reader: ImageReader
    acceptance: Acceptance
    model_registry: ModelRegistry
    classifiers: ClassifierRecords


@dataclass(frozen=True)
class Caller:
    """Whose training it is, whose concurrent fetches are counted, and what counts bytes that are held."""

    owner: str | None
    client: str
    hold: Hold


class Trainings:
    """Submits trainings."""

    def __init__(
        self, parts: TrainingParts, *, max_bytes: int, max_classifiers: int, max_classifiers_bytes: int
    ) -> None:
        self._parts = parts
        self._max_bytes = max_bytes
        self._max_classifiers = max_classifiers
        self._max_classifiers_bytes = max_classifiers_bytes

    async def submit(self, job_id: UUID, training: Training, examples: Examples, caller: Caller) -> None:
        """Submit a training under a new ID, behind the jobs of its images.

        Raises:
            ClassifierNotFound, ClassifierOutdated: there is no classifier to which examples could be added.
            TrainingNotSupported, EmbeddingsNotSupported: the model's workers cannot train.
            NotEnoughExamples, TooManyExamples, EmbeddingUnknown: the examples do not make a classifier.
            TooManyClassifiers: the owner has no room for another one, or for these examples.
            RequestError: an image was refused; the message names it.
            Unavailable: nothing was accepted, but for some of the images.
        """
        parts, owner = self._parts, caller.owner
        base = await self._find_base(training, owner)
        model = base.choose_model(examples.options.model) if base and training.adds else examples.options.model
        announced = await parts.model_registry.find_announcement(model)
        if announced is not None:
            _check(announced)
        if base and training.adds:
            base.check_model(announced)
        options = Options(model=model, webhook_url=examples.options.webhook_url)
        await parts.acceptance.check_webhook(options)
        read = await self._read(examples.images, options, caller)
        known = await parts.classifiers.find_examples(owner, training.name) if training.adds else {}
        embeddings = Embeddings(self._max_classifiers_bytes, caller.hold)
        named = await find_examples(parts.redis, examples.images, announced, owner, known, embeddings)
        found = [
            Example(label=example.label, image_hash=job.record.image_hash, job_id=str(job.job_id)) if job else name
            for example, job, name in zip(examples.images, read, named, strict=True)
        ]
        planned = [example for example in found if example is not None]
        check_examples((known | {example.image_hash: example.label for example in planned}).values())
        question = ANY_QUESTION if announced and announced.task == ZERO_SHOT else None
        await self._embed([job for job in read if job], question)
        plan = TrainingPlan(
            examples=tuple(planned),
            model=announced.model if announced else None,
            max_classifiers=self._max_classifiers,
            max_bytes=self._max_classifiers_bytes,
        )
        size_bytes = sum(map(len, embeddings.values())) + EXAMPLE_BYTES * len(planned)
        text = await run(_dump, plan, size_bytes=size_bytes)
        new = new_job(job_id, text, image_digest(job_id.bytes), options, owner)
        await parts.acceptance.accept([replace(new, record=new.record.model_copy(update={"training": training}))])

    async def _find_base(self, training: Training, owner: str | None) -> KnownClassifier | None:
        """Return the classifier of this name, if there is one.

        Raises:
            ClassifierNotFound, TooManyClassifiers
        """
        classifiers = self._parts.classifiers
        try:
            return await classifiers.find(owner, training.name)
        except ClassifierNotFound:
            if training.adds:
                raise
            if (count := await classifiers.count(owner)) >= self._max_classifiers:
                raise TooManyClassifiers(count=count, limit=self._max_classifiers) from None
            return None

    async def _read(self, images: Sequence[LabeledImage], options: Options, caller: Caller) -> list[NewJob | None]:
        """Read every image and make its job; None for an image that is only named.

        Raises:
            ServiceError: one of them was refused; the message names it.
        """
        reader = BatchReader(self._parts.image_reader, caller.client, caller.hold, self._max_bytes)
        too_large = f"The images have more than {self._max_bytes} bytes together: send fewer."
        of_image = options.model_copy(update={"webhook_url": None})

        async def read(number: int, example: LabeledImage) -> NewJob | None:
            if not example.is_image:
                return None
            try:
                image, digest = await reader.read(to_submission(example), too_large)
            except ServiceError as error:
                raise type(error)(f"examples[{number}]: {error.detail}") from error
            return new_job(uuid4(), image, digest, of_image, caller.owner)

        return await read_all(read(number, example) for number, example in enumerate(images))

    async def _embed(self, jobs: Sequence[NewJob], question: Question | None) -> None:
        """Accept the jobs of the images.

        Raises:
            QueueFull, StoreUnavailable
        """
        if not jobs:
            return
        asked = {"embedding": True, "question": question}
        new = [replace(job, record=job.record.model_copy(update=asked)) for job in jobs]
        await self._parts.acceptance.accept(new)


def _dump(plan: TrainingPlan) -> bytes:
    """Write a plan as JSON. One call for 85 MB would keep the event loop waiting for 0.3 s, also from a thread."""
    examples = b",".join([example.model_dump_json().encode() for example in plan.examples])
    rest = plan.model_copy(update={"examples": ()}).model_dump_json().encode()
    return rest.replace(b"[]", b"[" + examples + b"]", 1)


def _check(announced: ModelAnnouncement) -> None:
    """Check that the workers of a model can train.

    Raises:
        EmbeddingsNotSupported, TrainingNotSupported
    """
    if not announced.embeds:
        raise EmbeddingsNotSupported(f"{announced.model.id} gives no embeddings: name another model.")
    if not announced.trains:
        raise TrainingNotSupported(model=announced.model.id)
