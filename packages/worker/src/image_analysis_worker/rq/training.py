"""One training from its examples to its end, which is written together with the classifier."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
from redis.client import Pipeline
from redis.exceptions import RedisError

from image_analysis_common import keys
from image_analysis_common.classifiers import Classifier, Training, TrainingPlan, check_examples, is_same_model
from image_analysis_common.job_errors import (
    ClassifierNotFound,
    ClassifierOutdated,
    EmbeddingUnknown,
    JobCancelled,
    JobTimeout,
    TrainingNotSupported,
)
from image_analysis_common.models import ModelRef
from image_analysis_common.records import read_json
from image_analysis_worker.classifiers.examples import Examples
from image_analysis_worker.classifiers.fit import can_train, import_libraries, train
from image_analysis_worker.classifiers.head import Vectors
from image_analysis_worker.classifiers.store import VERSION, StoredClassifier, check_room
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.metrics import STAGES
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker


class ClassifierChanged(Exception):
    """Another training has changed the classifier to which this one adds its examples."""


class TrainingRun:
    """A training that a worker has taken; for one thread. Its methods can be called again after a `RedisError`."""

    def __init__(self, batch_worker: BatchWorker, outage: Outage, job: Job, model: ModelRef, *, limit_s: float) -> None:
        """Prepare a run; waiting for its examples, and training itself, may take `limit_s` each.

        After an outage of Redis, the wait for the examples begins anew: no worker could end their jobs.
        """
        self.job = job
        self._batch_worker = batch_worker
        self._outage = outage
        self._model = model
        self._limit_s = limit_s
        self._started_s = time.monotonic()
        self._training = job.record.training or Training(name="")
        self._examples: Examples | None = None
        self._new: dict[str, tuple[str, Vectors]] = {}
        self._trained: StoredClassifier | None = None
        self._base_version: bytes | None = None

    def is_ready(self) -> bool:
        """Return whether the jobs of the examples have ended, or the training has failed.

        Raises:
            RedisError
        """
        with self._ended_by_errors():
            return self.job.has_ended or self._are_examples_ready()
        return True

    def advance(self) -> bool:
        """Train, if the training `is_ready`; return whether the job is ready for `finish`.

        Raises:
            RedisError
        """
        if not self.is_ready():
            return False
        with self._ended_by_errors():
            if self._examples is not None and not self.job.has_ended:
                self._new = self._examples.read()
                self._train()
        return True

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """The last line of defense: an error but Redis's own ends the training, and the worker continues."""
        try:
            yield
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001
            self.job.end(error)

    def _are_examples_ready(self) -> bool:
        if self._examples is None:
            if not can_train():
                raise TrainingNotSupported(model=self._model.id)
            plan = read_json(TrainingPlan, self.job.image)
            import_libraries()
            self._examples = Examples(self._batch_worker.connection, plan, self._model)
        if self._examples.are_ready():
            return True
        if self._batch_worker.connection.hexists(keys.job(self.job.job_id), "cancelled"):
            raise JobCancelled
        if min(time.monotonic() - self._started_s, self._outage.available_for_s) > self._limit_s:
            raise JobTimeout(f"The examples took longer than {self._limit_s:g} s: send the training again.")
        return False

    def _train(self) -> None:
        """Train on the examples, and on those of the classifier if they are added to it.

        Raises:
            JobError: the examples do not make a classifier.
        """
        started_s, name = time.perf_counter(), self._training.name
        base = self._read_base() if self._training.adds else {}
        examples = base | {
            image_hash: (label, vector if len(vector) else base[image_hash][1])
            for image_hash, (label, vector) in self._new.items()
            if len(vector) or image_hash in base
        }
        labels = [label for label, _ in examples.values()]
        check_examples(labels)
        sizes = {len(vector) for _, vector in examples.values()}
        if len(sizes) > 1:
            raise EmbeddingUnknown("The embeddings of the examples differ in size: send the images themselves.")
        if self._examples is not None:
            check_room(1, sum(vector.nbytes for _, vector in examples.values()), self._examples.plan)
        vectors = np.stack([vector for _, vector in examples.values()])
        with STAGES.measure("train", self.job.stages):
            found = train(vectors, labels, until_s=time.monotonic() + self._limit_s)
        about = Classifier(
            name=name,
            labels=found.labels,
            examples={label: labels.count(label) for label in found.labels},
            model=self._model,
            accuracy=found.accuracy,
            confusion=found.confusion,
            trained_at=datetime.now(UTC),
            training_ms=round((time.perf_counter() - started_s) * 1000, 2),
        )
        # Jobs of one version share runs and cached results, so two classifiers never have the same one.
        version = found.head.digest([self.job.record.owner or "", name, *found.labels])
        hashes = {image_hash: label for image_hash, (label, _) in examples.items()}
        self._trained = StoredClassifier(about, version, found.head, hashes)
        self.job.end(about)

    def _read_base(self) -> dict[str, tuple[str, Vectors]]:
        """Return the examples of the classifier as it is now.

        Raises:
            ClassifierNotFound, ClassifierOutdated
        """
        owner, name = self.job.record.owner, self._training.name
        base = self._batch_worker.classifiers.read(owner, name)
        if base is None:
            raise ClassifierNotFound(name=name)
        if not is_same_model(base.about.model, self._model):
            raise ClassifierOutdated(name=name, model=self._model.id)
        self._base_version = base.version.encode()
        pairs = zip(base.examples.items(), base.head.vectors, strict=True)
        return {image_hash: (label, vector) for (image_hash, label), vector in pairs}

    def finish(self) -> None:
        """Write the end of the job, and with it the classifier, unless the job was cancelled meanwhile.

        Raises:
            RedisError
        """
        while True:
            try:
                self._batch_worker.finish_with(self.job, self._write, self._watched())
            except RedisError:
                raise
            except ClassifierChanged:
                self.job.trained = None
                self._again()
            except Exception as error:
                # The last line of defense, and for an owner without room for the classifier.
                if self.job.failure is not None:
                    raise
                self.job.trained, self._trained = None, None
                self.job.end(error)
            else:
                return

    def _again(self) -> None:
        try:
            self._train()
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001
            self._trained = None
            self.job.end(error)

    def _watched(self) -> Sequence[str]:
        owner = self.job.record.owner or ""
        return keys.classifier(owner, self._training.name), keys.classifiers_of(owner)

    def _write(self, pipeline: Pipeline) -> None:
        """Put the classifier into a transaction that watches it.

        Raises:
            ClassifierChanged, TooManyClassifiers
        """
        if self._trained is None or self._examples is None:
            pipeline.multi()
            return
        owner = self.job.record.owner
        version = pipeline.hget(keys.classifier(owner or "", self._training.name), VERSION)
        if self._training.adds and version != self._base_version:
            raise ClassifierChanged
        self._batch_worker.classifiers.write(pipeline, owner, self._trained, self._examples.plan)
