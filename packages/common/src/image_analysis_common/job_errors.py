"""The reasons for which a job ends as FAILED; a client sees them in its `error`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from image_analysis_common.errors import ServiceError


class JobError(ServiceError):
    """The job ends as FAILED; running it again would give the same end."""


class CorruptImage(JobError):
    """The header is that of an image, but the rest cannot be decoded."""

    code = "corrupt_image"
    sentence = "The image is damaged or cut short: send the whole file."


class UnsupportedDimensions(JobError):
    """The model's image processor cannot resize an image of these dimensions, or would make it too large."""

    code = "unsupported_dimensions"
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

    code = "job_timeout"
    sentence = "The image took longer than {limit_s:g} s: send a smaller one."
    example: ClassVar[Mapping[str, Any]] = {"limit_s": 60}


class WorkerLost(JobError):
    """The worker died on every attempt at the job."""

    code = "worker_lost"
    sentence = "The worker crashed {attempts} times on this image. Try a different image."
    example: ClassVar[Mapping[str, Any]] = {"attempts": 3}
