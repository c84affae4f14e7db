"""Classifiers and their examples, made without images, and a service without any."""

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

import httpx
import numpy as np
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.classifiers import Classifier, TrainingPlan
from image_analysis_common.models import ModelRef
from image_analysis_worker.classifiers.fit import train
from image_analysis_worker.classifiers.head import Vectors
from image_analysis_worker.classifiers.store import ClassifierStore, StoredClassifier
from support.announcements import MODEL

DIMENSION = 16
FOREVER_S = float("inf")
PLAN = TrainingPlan(examples=(), max_classifiers=20, max_bytes=64_000_000)


def forget_classifiers(client: httpx.Client) -> None:
    """Delete all classifiers that a service has."""
    for classifier in client.get("/classifiers").json()["classifiers"]:
        client.delete(f"/classifiers/{classifier['name']}").raise_for_status()


def make_vectors(labels: Sequence[str], *, noise: float = 0.3, seed: int = 0) -> Vectors:
    """Make an embedding for each label: equal labels are near each other, and far from all others."""
    numbers = np.random.default_rng(seed)
    centers = {
        label: np.random.default_rng([7, *label.encode()]).normal(size=DIMENSION) for label in dict.fromkeys(labels)
    }
    vectors = np.stack([centers[label] + noise * numbers.normal(size=DIMENSION) for label in labels])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_classifier(
    name: str = "pets", labels: Sequence[str] = ("cat", "dog"), *, model: ModelRef = MODEL
) -> StoredClassifier:
    """Train a classifier with eight examples of each label."""
    given = [label for label in labels for _ in range(8)]
    found = train(make_vectors(given), given, until_s=FOREVER_S)
    about = Classifier(
        name=name,
        labels=found.labels,
        examples=dict.fromkeys(found.labels, 8),
        model=model,
        accuracy=found.accuracy,
        confusion=found.confusion,
        trained_at=datetime(2026, 11, 29, tzinfo=UTC),
        training_ms=8.5,
    )
    hashes = {sha256(str(number).encode()).hexdigest(): label for number, label in enumerate(given)}
    return StoredClassifier(about, found.head.digest(found.labels), found.head, hashes)


def store(redis: Redis, classifier: StoredClassifier, owner: str | None = None, plan: TrainingPlan = PLAN) -> None:
    """Write a classifier as a worker does at the end of a training."""
    index = keys.classifiers_of(owner or "")
    redis.transaction(lambda pipeline: ClassifierStore(redis).write(pipeline, owner, classifier, plan), index)


def to_text(vector: Vectors) -> str:
    """Write an embedding as it is in results."""
    return b64encode(vector.astype("<f4").tobytes()).decode()
