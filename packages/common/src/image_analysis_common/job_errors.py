"""The reasons for which a job ends as FAILED, which a client sees in its `error`, or has no result yet.

A call that waits for the result answers with the error's `status`: 400 if another image helps, 500 otherwise.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from image_analysis_common.errors import RequestError, ServiceError, Unavailable


class JobError(ServiceError):
    """The job ends as FAILED; running it again would give the same end."""

    @staticmethod
    def of(code: str, detail: str) -> "JobError":
        """Make the error that a job has FAILED with; one with an unknown code is an `internal_error`."""
        kind = next((kind for kind in JobError.__subclasses__() if kind.code == code), JobError)
        return kind(detail)


class CorruptImage(JobError):
    """The header is that of an image, but the rest cannot be decoded."""

    status, code = 400, "corrupt_image"
    sentence = "The image is damaged or cut short: send the whole file."


class UnsupportedDimensions(JobError):
    """The model's image processor cannot resize an image of these dimensions, or would make it too large."""

    status, code = 400, "unsupported_dimensions"
    sentence = "The image cannot be resized for this model: its sides differ too much, or it is too large."


class ImageExpired(JobError):
    """The image expired before a worker took the job."""

    code = "image_expired"
    sentence = "The job waited longer than its image is kept: submit the image again."


class JobLost(JobError):
    """The job's entry in RQ's queue was removed."""

    code = "job_lost"
    sentence = "The job was removed from the queue before its end: submit the image again."


class JobTimeout(JobError):
    """The image took longer than a job may."""

    status, code = 400, "job_timeout"
    sentence = "The image took longer than {limit_s:g} s: send a smaller one."
    example: ClassVar[Mapping[str, Any]] = {"limit_s": 60}


class WorkerLost(JobError):
    """The worker died on every attempt at the job."""

    status, code = 400, "worker_lost"
    sentence = "The worker crashed {attempts} times on this image. Try a different image."
    example: ClassVar[Mapping[str, Any]] = {"attempts": 3}


class LabelsNotSupported(JobError):
    """The request brings labels, and the model has its own."""

    status, code = 400, "labels_not_supported"
    sentence = "{model} has labels of its own: leave them out, or name a zero-shot model."
    example: ClassVar[Mapping[str, Any]] = {"model": "vit-tiny-cifar10"}


class LabelsRequired(JobError):
    """The model is a zero-shot model, which has no labels of its own, and the request brings none."""

    status, code = 400, "labels_required"
    sentence = "{model} has no labels of its own: send some for it to choose from."
    example: ClassVar[Mapping[str, Any]] = {"model": "clip-vit-base-patch32"}


class EmbeddingsNotSupported(JobError):
    """The request asks for the image's embedding, and where the model's classifier begins is not known."""

    status, code = 400, "embeddings_not_supported"
    sentence = "{model} gives no embeddings: leave out `embedding`, or name another model."
    example: ClassVar[Mapping[str, Any]] = {"model": "squeezenet1_1"}


class ClassifierNotFound(JobError):
    """The caller has no classifier of this name."""

    status, code = 404, "classifier_not_found"
    sentence = "You have no classifier called {name}: see GET /classifiers."
    example: ClassVar[Mapping[str, Any]] = {"name": "products"}


class ClassifierOutdated(JobError):
    """The classifier was made with another revision of its model, whose embeddings mean something else."""

    status, code = 409, "classifier_outdated"
    sentence = (
        "The classifier {name} was made with another revision of {model}: "
        "train it again from its images, with PUT /classifiers/{name}."
    )
    example: ClassVar[Mapping[str, Any]] = {"name": "products", "model": "vit-tiny-cifar10"}


class NotEnoughExamples(JobError):
    """A classifier lacks labels, or a label lacks examples."""

    status, code = 400, "not_enough_examples"
    sentence = "The label {label!r} has {count} different examples, and needs {least}: send more images of it."
    example: ClassVar[Mapping[str, Any]] = {"label": "cat", "count": 4, "least": 5}


class TooManyExamples(JobError):
    """A classifier has too many labels, or a label has too many examples."""

    status, code = 400, "too_many_examples"
    sentence = "The label {label!r} has {count} examples, and the limit is {limit}: send fewer."
    example: ClassVar[Mapping[str, Any]] = {"label": "cat", "count": 201, "limit": 200}


class EmbeddingUnknown(JobError):
    """An example names an image whose embedding the service does not have, or has no more."""

    status, code = 400, "embedding_unknown"
    sentence = "examples[{number}]: the service does not know the embedding of this image: send the image itself."
    example: ClassVar[Mapping[str, Any]] = {"number": 3}


class TrainingNotSupported(JobError):
    """The workers of the model cannot train: they lack scikit-learn."""

    status, code = 400, "training_not_supported"
    sentence = "The workers of {model} cannot train: their operator has to install image-analysis-worker[teach]."
    example: ClassVar[Mapping[str, Any]] = {"model": "vit-tiny-cifar10"}


class TooManyClassifiers(JobError):
    """The caller has as many classifiers as allowed, or they have as many bytes."""

    status, code = 409, "too_many_classifiers"
    sentence = "You have {count} classifiers, and the limit is {limit}: delete one first."
    example: ClassVar[Mapping[str, Any]] = {"count": 20, "limit": 20}


class JobCancelled(RequestError):
    """The job was cancelled while a call waited for its result."""

    status, code = 409, "job_cancelled"
    sentence = "The job was cancelled before it ended: send the image again."


class ResultPending(Unavailable):
    """A call that answers with a result has waited long enough; the job goes on, and its result is cached."""

    code = "result_pending"
    retry_after_s = 1
    sentence = "The analysis has not ended yet, and goes on: send the same request again to get its result."


class InvalidClassifierName(RequestError):
    """The name of a classifier has other characters, or too many."""

    code = "invalid_classifier_name"
    sentence = "A classifier's name has 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or a digit."
