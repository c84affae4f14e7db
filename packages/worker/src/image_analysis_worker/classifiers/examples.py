"""The embeddings of a training's examples: those in its plan, and those that other jobs compute."""

from base64 import b64decode
from collections.abc import Mapping, Sequence

import numpy as np
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.classifiers import Example, TrainingPlan, is_same_model
from image_analysis_common.job_errors import EmbeddingUnknown, JobError
from image_analysis_common.models import JobStatus, ModelRef
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.head import Vectors

AT_ONCE = 100
"""How many jobs are asked for in one round trip."""

DIGITS = 12


class Examples:
    """The examples of one training, and how many of their jobs have ended; for one thread."""

    def __init__(self, redis: Redis, plan: TrainingPlan, model: ModelRef) -> None:
        self.plan = plan
        self._redis = redis
        self._model = model
        self._is_same_model = plan.model is None or is_same_model(plan.model, model)
        self._waiting = [number for number, example in enumerate(plan.examples) if example.job_id]

    def are_ready(self) -> bool:
        """Return whether every job has ended; none is asked for twice after its end."""
        while some := self._waiting[:AT_ONCE]:
            with self._redis.pipeline(transaction=False) as pipeline:
                for number in some:
                    pipeline.hget(keys.job(self.plan.examples[number].job_id or ""), "status")
                statuses = pipeline.execute()
            ended = [
                number
                for number, status in zip(some, statuses, strict=True)
                if status is None or JobStatus(status.decode()).is_final
            ]
            self._waiting = [number for number in some if number not in ended] + self._waiting[AT_ONCE:]
            if len(ended) < len(some):
                return False
        return True

    def read(self) -> dict[str, tuple[str, Vectors]]:
        """Return the label and the embedding (D,) of each image by its SHA-256; of one image, the last label.

        The embedding is empty if the classifier must have it.

        Raises:
            JobError: one of the examples has no embedding. The message names it.
        """
        found = dict[str, tuple[str, Vectors]]()
        for start in range(0, len(self.plan.examples), AT_ONCE):
            some = self.plan.examples[start : start + AT_ONCE]
            for number, (example, values) in enumerate(zip(some, self._read(some, start), strict=True), start):
                vector = np.frombuffer(values or b"", "<f4").astype(np.float32)
                must_be_known = example.embedding or example.job_id
                if (must_be_known and not len(vector)) or not np.isfinite(vector).all():
                    raise EmbeddingUnknown(number=number)
                found[example.image_hash] = (example.label, vector)
        return found

    def _read(self, examples: Sequence[Example], start: int) -> list[bytes | None]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for example in examples:
                pipeline.hgetall(keys.job(example.job_id or ""))
                pipeline.hget(keys.embedding(example.image_hash), self._model.cache_field)
            answers = iter(pipeline.execute())
        return [
            self._planned(example) or self._judge(number, example, fields) or cached
            for number, (example, fields, cached) in enumerate(zip(examples, answers, answers, strict=True), start)
        ]

    def _planned(self, example: Example) -> bytes | None:
        """Return the embedding in the plan, unless workers have another revision of the model now."""
        return b64decode(example.embedding) if example.embedding and self._is_same_model else None

    def _judge(self, number: int, example: Example, fields: Mapping[bytes, bytes]) -> bytes | None:
        """Return the embedding in the record of an example's job; None if it is not there.

        Raises:
            JobError: the job has failed.
        """
        record = JobRecord.from_hash(fields) if fields else None
        if record is not None and record.error is not None:
            where = f"examples[{number}] (SHA-256 {example.image_hash[:DIGITS]}...): "
            raise JobError.of(record.error.code, where + record.error.detail)
        result = record.result if record else None
        if result is None or result.embedding is None or not is_same_model(result.model, self._model):
            return None
        return b64decode(result.embedding.values)
