"""Jobs in flight, for tests of a worker's parts without a queue."""

from image_analysis_common.classifiers import Training
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.tasks import MAX_ATTEMPTS
from image_analysis_worker.classifiers.store import StoredClassifier
from image_analysis_worker.jobs.batching import Embedding, Job


def make_job(
    job_id: str = "1",
    *,
    attempts_left: int = MAX_ATTEMPTS,
    training: Training | None = None,
    classifier: StoredClassifier | None = None,
    embedding: Embedding | None = None,
) -> Job:
    """Make a job that a worker has taken; it is suspect if an attempt is used up."""
    ref = classifier and classifier.ref
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64, training=training, classifier=ref)
    is_suspect = attempts_left < MAX_ATTEMPTS
    return Job(
        job_id, "r", record, b"image", attempts_left, is_suspect=is_suspect, classifier=classifier, embedding=embedding
    )
