"""Answers jobs by a classifier from examples, which needs the embedding of the image alone."""

from collections.abc import Iterable

import numpy as np

from image_analysis_common.classifiers import is_same_model
from image_analysis_common.errors import UnreadableRecord
from image_analysis_common.job_errors import ClassifierNotFound, ClassifierOutdated
from image_analysis_common.models import ModelRef, Prediction
from image_analysis_worker.classifiers.store import ClassifierStore
from image_analysis_worker.jobs.batching import Job


def find_classifiers(store: ClassifierStore, jobs: Iterable[Job]) -> None:
    """Give each job that asks for a classifier the one of its owner, if there is one that can be read."""
    for job in jobs:
        if (asked := job.record.classifier) is None or job.has_ended:
            continue
        try:
            job.classifier = store.find(job.record.owner, asked.name)
        except UnreadableRecord:
            job.end(ClassifierOutdated(name=asked.name, model=job.record.model or "the model"))


def check_classifier(job: Job, model: ModelRef) -> None:
    """Check that a job's classifier, if it asks for one, can answer it.

    Raises:
        ClassifierNotFound: its owner has deleted it.
        ClassifierOutdated: it was made with another revision of the model.
    """
    asked = job.record.classifier
    if asked is None:
        return
    if job.classifier is None:
        raise ClassifierNotFound(name=asked.name)
    if not is_same_model(job.classifier.about.model, model):
        raise ClassifierOutdated(name=asked.name, model=model.id)


def can_predict(job: Job) -> bool:
    """Return whether the embedding in the cache is enough to answer a job by its classifier."""
    return bool(job.classifier and job.embedding and len(job.embedding.values) == job.classifier.size_bytes)


def predict(job: Job) -> list[Prediction]:
    """Return the predictions of a job's classifier for its image's embedding, which is known.

    Raises:
        ClassifierNotFound, ClassifierOutdated: the classifier cannot answer.
    """
    found = job.classifier
    if found is None or job.embedding is None:
        raise ClassifierNotFound(name=job.record.classifier.name if job.record.classifier else "")
    vector = np.frombuffer(job.embedding.values, "<f4").astype(np.float32)
    if len(vector) != found.head.dimension:
        raise ClassifierOutdated(name=found.about.name, model=found.about.model.id)
    return found.head.rank(found.about.labels, vector, job.top_k)
