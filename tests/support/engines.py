"""Checkpoints on chosen engines, what they answer, and the embeddings that they give."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.images import image_digest
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.engine import Engine
from image_analysis_worker.engines.load import load_engine
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.settings import WorkerSettings


def load(folder: Path | str, **settings: Any) -> Engine:
    return load_engine(find_checkpoint(str(folder)), WorkerSettings(**settings))


def configure(folder: Path, **fields: object) -> None:
    """Set fields of a checkpoint's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def classify(model: Engine, images: Sequence[bytes]) -> list[dict[str, float]]:
    """Return the confidence in each label, image by image."""
    with closing(model.open_decoder()) as decoder:
        answers = [model.classify([decoder.decode(image)], 1000)[0] for image in images]
    return [{p.label: p.confidence for p in predictions} for predictions in answers]


def make_job(image: bytes, *, embedding: bool = True) -> Job:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash=image_digest(image), embedding=embedding)
    return Job("1", "r", record, image, attempts_left=3, is_suspect=False)


def answer(model: Engine, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Run one batch; return the confidence in each label, job by job."""
    with closing(model.open_decoder()) as decoder:
        inputs = [model.prepare(job, decoder) for job in jobs]
    return [{p.label: p.confidence for p in predictions} for predictions in model.classify(inputs, 1000)]


def read_embedding(job: Job) -> NDArray[np.float32]:
    assert job.embedding is not None
    return np.frombuffer(job.embedding.values, "<f4")


def embed(model: Engine, images: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the embeddings of images, which go through the model in one batch."""
    jobs = [make_job(image) for image in images]
    answer(model, jobs)
    return np.stack([read_embedding(job) for job in jobs])
