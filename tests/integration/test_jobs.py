"""A queued image runs through RQ, the bundled model and the records, on a real Redis."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from shutil import copytree
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.job import JobStatus as RqStatus

from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys, tasks
from image_analysis_common.images import image_digest
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from support.api_processes import WORKER, run_service
from support.bombs import narrow_png
from support.checkpoints import make_checkpoint
from support.direct import DirectQueue
from support.memory import peak_bytes
from support.replies import read_record
from support.samples import CHELSEA, encode, make_image, make_jpeg, make_png
from support.waiting import PATIENCE_S, wait_until

QUEUE = tasks.queue_name(BUNDLED_MODEL)
Submit = Callable[[bytes], str]
SubmitTo = Callable[[str, bytes], str]
Finish = Callable[[str], JobRecord]


@pytest.fixture
def submit_to(redis: Redis, redis_url: str) -> SubmitTo:
    """Queue an image for a model as the API does and return the job's ID."""

    def submit_to(model: str, image: bytes) -> str:
        async def enqueue() -> str:
            job_id, record = uuid4(), JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image))
            async with connect(redis_url) as client:
                await DirectQueue(client, model).enqueue(NewJob(job_id, image, record, request_id="order-7"))
            return str(job_id)

        return asyncio.run(enqueue())

    return submit_to


@pytest.fixture
def submit(submit_to: SubmitTo) -> Submit:
    return partial(submit_to, BUNDLED_MODEL)


@pytest.fixture
def finish(redis: Redis, worker: object) -> Callable[[str], JobRecord]:
    """Wait until a worker has ended a job, and return its record."""

    def finish(job_id: str) -> JobRecord:
        wait_until(lambda: read(redis, job_id).status.is_final, f"job {job_id} ends")
        return read(redis, job_id)

    return finish


def read(redis: Redis, job_id: str) -> JobRecord:
    return read_record(redis.hgetall(keys.job(job_id)))


def fetch_job(redis: Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection=redis, serializer=tasks.SERIALIZER)


@pytest.fixture(scope="session")
def pipeline() -> Callable[..., list[dict[str, Any]]]:
    """The transformers pipeline, called directly: every answer must equal its answer."""
    from transformers import pipeline

    return pipeline("image-classification", model=str(BUNDLED_FOLDER))


EXIF = make_image(9, size_px=(60, 90)).getexif()
EXIF[0x0112] = 6
IMAGES = {
    "chelsea.png": CHELSEA.read_bytes(),
    "rotated.jpg": encode(make_image(9, size_px=(60, 90)), "JPEG", exif=EXIF),
    "small.webp": encode(make_image(2, size_px=(9, 7)), "WEBP"),
    "palette.gif": encode(make_image(3), "GIF"),
    "alpha.png": make_png(4, mode="RGBA"),
    "gray.png": make_png(5, mode="L"),
    "cmyk.jpg": make_jpeg(6, mode="CMYK"),
    "large.avif": encode(make_image(7, size_px=(800, 600)), "AVIF"),
    "plain.bmp": encode(make_image(8), "BMP"),
}


def test_every_image_gets_the_pipelines_own_answer(
    submit: Submit, finish: Finish, pipeline: Callable[..., Any]
) -> None:
    jobs = {name: submit(image) for name, image in IMAGES.items()}

    records = {name: finish(job_id) for name, job_id in jobs.items()}

    for name, record in records.items():
        expected = pipeline(Image.open(BytesIO(IMAGES[name])), top_k=5)
        assert record.status is JobStatus.COMPLETED
        assert record.result is not None
        assert record.result.label == expected[0]["label"]
        assert record.result.confidence == record.result.predictions[0].confidence
        assert [p.label for p in record.result.predictions] == [p["label"] for p in expected]
        assert [p.confidence for p in record.result.predictions] == pytest.approx(
            [p["score"] for p in expected], abs=1e-5
        )


def test_finished_job_is_in_the_cache_and_in_rqs_books(redis: Redis, submit: Submit, finish: Finish) -> None:
    job_id = submit(CHELSEA.read_bytes())

    record = finish(job_id)
    job, queue = fetch_job(redis, job_id), Queue(QUEUE, connection=redis)
    assert record.result is not None
    assert redis.hkeys(keys.result(record.image_hash)) == [record.result.model.cache_field.encode()]
    assert job.get_status() is RqStatus.FINISHED
    assert job.return_value() == record.result.model_dump()
    assert (queue.count, queue.finished_job_registry.get_job_ids()) == (0, [job_id])
    assert not redis.exists(keys.image(job_id))


def test_truncated_image_fails_alone_and_is_not_tried_again(redis: Redis, submit: Submit, finish: Finish) -> None:
    image = make_jpeg(1, size_px=(300, 300))
    damaged, sound = submit(image[: len(image) // 2]), submit(image)

    record = finish(damaged)
    assert record.error == JobFailure(
        code="corrupt_image",
        detail="The image is cut short: a part of its picture is missing. Send the whole file.",
    )
    assert (record.status, record.result) == (JobStatus.FAILED, None)
    assert finish(sound).status is JobStatus.COMPLETED
    queue = Queue(QUEUE, connection=redis)
    assert queue.failed_job_registry.get_job_ids() == [damaged]
    assert [result.type.name for result in fetch_job(redis, damaged).results()] == ["FAILED"]


def test_image_that_a_model_would_enlarge_without_limit_fails_alone(
    redis: Redis, redis_url: str, tmp_path: Path, submit_to: SubmitTo
) -> None:
    folder = make_checkpoint(tmp_path / "convnext", "convnext")
    narrow, photo = (submit_to("convnext", image) for image in (narrow_png(1, 4000), CHELSEA.read_bytes()))

    with run_service(WORKER, redis_url, MODEL_ID=str(folder)) as pid:
        wait_until(lambda: all(read(redis, job).status.is_final for job in (narrow, photo)), "both end")
        peak = peak_bytes(pid)

    record = read(redis, narrow)
    assert record.error == JobFailure(
        code="unsupported_dimensions",
        detail="The image cannot be resized for this model: its sides differ too much, or it is too large.",
    )
    assert (record.status, read(redis, photo).status) == (JobStatus.FAILED, JobStatus.COMPLETED)
    assert [result.type.name for result in fetch_job(redis, narrow).results()] == ["FAILED"]
    assert peak < 2 * 2**30


def test_requeued_ended_job_changes_nothing(redis: Redis, submit: Submit, finish: Finish) -> None:
    job_id = submit(make_png())
    ended = finish(job_id)

    redis.lpush(f"rq:queue:{QUEUE}", job_id)
    queue = Queue(QUEUE, connection=redis)
    wait_until(lambda: not queue.count and not redis.exists(queue.intermediate_queue_key), "the job is taken again")
    wait_until(lambda: queue.started_job_registry.count == 0, "the second run ends")

    assert read(redis, job_id) == ended
    assert fetch_job(redis, job_id).get_status() is RqStatus.FINISHED


def test_stock_rq_worker_can_run_the_job(redis: Redis, redis_url: str, tmp_path: Path, submit_to: SubmitTo) -> None:
    folder = Path(copytree(BUNDLED_FOLDER, tmp_path / "rq"))
    job_id = submit_to(folder.name, CHELSEA.read_bytes())

    # SimpleWorker with RQ's command: the default class forks, which does not work with torch.
    command = ["-m", "rq.cli", "worker", "-S", "json", "-w", "rq.worker.SimpleWorker", "--burst", "-u", redis_url]
    variables = {"REDIS_URL": redis_url, "MODEL_ID": str(folder)}
    subprocess.run(
        [sys.executable, *command, "analysis-rq"], env=os.environ | variables, check=True, timeout=PATIENCE_S
    )

    result = read(redis, job_id).result
    assert result is not None
    assert result.label == "cat"
