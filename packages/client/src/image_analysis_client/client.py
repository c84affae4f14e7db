"""The blocking client; what it does is written in `session` and `many`."""

from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Self, Unpack
from uuid import UUID

import httpx

from image_analysis_client.channels import BlockingChannel, client_options, iterate, run
from image_analysis_client.deadline import Deadline
from image_analysis_client.many import classify_many
from image_analysis_client.responses import AnalysisStatus, Classifier, ModelDetails, ModelStatus
from image_analysis_client.session import Session
from image_analysis_client.teaching import Training, teach
from image_analysis_client.values import Examples, Options, Outcome, Source
from image_analysis_common.models import AnalysisResult


class Client:
    """A client of one API; threads may share it.

    The address is `base_url`, else `IMAGE_ANALYSIS_URL`, else http://127.0.0.1:8000; the key is `api_key`, else
    `IMAGE_ANALYSIS_API_KEY`. `timeout` is in seconds, for connecting and for each silence. A call that fails for a
    passing reason is repeated for `max_retry_seconds` at most, 0 for never; nothing is analyzed twice by that.

    Raises:
        ValueError: the address or the key is malformed.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        max_retry_seconds: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        options = client_options(base_url, api_key)
        self._client = httpx.Client(**options, timeout=timeout, transport=transport)
        self._session = Session(BlockingChannel(self._client), max_retry_seconds)

    def __repr__(self) -> str:
        return f"Client({str(self._client.base_url)!r})"

    def classify(
        self, source: Source, *, wait_timeout: float | None = None, **options: Unpack[Options]
    ) -> AnalysisResult:
        """Submit an image and wait for its result, `wait_timeout` seconds at most.

        No attempt to submit it begins after that; one that is under way is completed.

        Raises:
            APIError: the image was refused, or not accepted in time: `RateLimited`, for example.
            JobFailed, JobCancelled: the job gave no result.
            WaitTimeout: the job goes on; `job(error.job_id)` waits again.
            ServiceUnreachable: no answer came.
            OSError, ValueError: the source cannot be read.
        """
        return run(self._session.classify(source, options, wait_timeout))

    def submit(self, source: Source, **options: Unpack[Options]) -> "Job":
        """Submit an image and return its job at once."""
        status = run(self._session.submit(source, options))
        return Job(self._session, status.job_id, status)

    def job(self, job_id: str | UUID) -> "Job":
        """Return a job by its ID, without asking the API.

        Raises:
            ValueError: it is no UUID.
        """
        return Job(self._session, job_id if isinstance(job_id, UUID) else UUID(job_id))

    def classify_many(self, sources: Iterable[Source], **options: Unpack[Options]) -> Generator[Outcome, None, None]:
        """Submit many images as batches and give the outcome of each as it ends, in no order.

        `sources` is read as it is needed, a batch ahead at most, so it may be endless. Batches are sent as the quota of
        the API allows. Closing the generator early cancels the jobs that still wait; a warning is logged if some
        may be left.

        Raises:
            APIError, ServiceUnreachable: nothing more can be sent. Every source that has a job has got an outcome; the
                other ones were not submitted.
        """
        return iterate(classify_many(self._session, sources, options))

    def models(self) -> list[ModelStatus]:
        """List every model that a worker has served in the last day."""
        return run(self._session.models())

    def model(self, model_id: str) -> ModelDetails:
        """Get a model with its labels."""
        return run(self._session.model(model_id))

    def teach(
        self,
        name: str,
        examples: Examples,
        *,
        model: str | None = None,
        adds: bool = False,
        wait_timeout: float | None = None,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> Classifier:
        """Train a classifier on labelled images: on these alone, or `adds` them to those that it has.

        An image that it has with another label gets this one. The images are sent as by `classify_many`; then the
        training is waited for, `wait_timeout` seconds at most. `on_outcome` is called when an image has been analyzed.
        An interrupt cancels what still waits and the training; a warning is logged if something may be left.

        Raises:
            ValueError: there are too few or too many labels or examples; nothing was sent.
            ExamplesFailed: some of the examples cannot be used; nothing was trained.
            APIError: the name, the model or the key is refused.
            JobFailed, JobCancelled: the training failed or was cancelled.
            WaitTimeout: the training goes on.
            ServiceUnreachable: no answer came.
        """
        return run(teach(self._session, Training(name, examples, model, adds, on_outcome), wait_timeout))

    def correct(self, name: str, job_id: str | UUID, label: str, *, wait_timeout: float | None = None) -> Classifier:
        """Add the image of a job to a classifier with its right label, and train again, as `teach` does."""
        job = job_id if isinstance(job_id, UUID) else UUID(job_id)
        return self.teach(name, [(label, job)], adds=True, wait_timeout=wait_timeout)

    def classifiers(self) -> list[Classifier]:
        """List your classifiers."""
        return run(self._session.classifiers())

    def classifier(self, name: str) -> Classifier:
        """Get a classifier.

        Raises:
            NotFound: you have none of this name.
        """
        return run(self._session.classifier(name))

    def delete_classifier(self, name: str) -> None:
        """Delete a classifier, with all that it has learned."""
        run(self._session.delete_classifier(name))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Job:
    """A job of a client; `id` is its UUID."""

    def __init__(self, session: Session, job_id: UUID, known: AnalysisStatus | None = None) -> None:
        self._session = session
        self._known = known
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({str(self.id)!r})"

    def status(self) -> AnalysisStatus:
        """Get the job's status."""
        return run(self._session.status(self.id))

    def wait(self, timeout: float | None = None) -> AnalysisResult:
        """Wait for the job's result, `timeout` seconds at most.

        Raises:
            JobFailed, JobCancelled: the job gave no result.
            WaitTimeout: the job goes on.
            NotFound: the job is unknown or has expired.
        """
        return run(self._session.wait(self._known or self.id, Deadline(timeout)))

    def events(self) -> Generator[AnalysisStatus, None, None]:
        """Give every status of the job once and in order, until the last one; lost connections are made again."""
        return iterate(self._session.follow(self.id))

    def cancel(self) -> AnalysisStatus | None:
        """Cancel the job; if it has ended, forget it and return None.

        A job that waited is CANCELLED. One that is PROCESSING is CANCELLED when it ends, and its result is dropped.
        """
        return run(self._session.cancel(self.id))
