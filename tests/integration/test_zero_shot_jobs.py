"""Questions run through RQ, a real worker of a zero-shot model and the records, on a real Redis."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from rq.job import Job as RqJob

from addresses import Addresses
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import ImageEmbedding, JobStatus, Question
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from support.api_processes import WORKER, run_service
from support.direct import DirectQueue
from support.replies import raw, read_record
from support.samples import make_png
from support.scraping import scrape, values
from support.waiting import PATIENCE_S, wait_until
from support.zero_shot import make_zero_shot

MODEL = "tiny-clip"
CATS = Question(labels=("a cat", "a dog"))
PAPERS = Question(labels=tuple(f"paper number {number}" for number in range(8)))
Ask = Callable[..., str]
Finish = Callable[[str], JobRecord]


@pytest.fixture(scope="module")
def metrics_url(redis_of_module: Redis, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A worker of a tiny CLIP that is ready; the address of its metrics."""
    folder = make_zero_shot(tmp_path_factory.mktemp("models") / MODEL, "clip")
    port = Addresses.choose({}, free_ports=True).worker_metrics_port
    with run_service(WORKER, redis_url, MODEL_ID=str(folder), WORKER_METRICS_PORT=str(port)):
        wait_until(lambda: redis_of_module.exists(keys.announcement(MODEL)), "the worker is ready", 120)
        yield f"http://127.0.0.1:{port}/metrics"


@pytest.fixture
def ask(redis_url: str) -> Ask:
    """Queue an image with a question as the API does, and return the job's ID."""

    def ask(image: bytes, question: Question, model: str = MODEL, **options: int) -> str:
        async def enqueue() -> str:
            record = JobRecord(status=JobStatus.PENDING, image_hash=image_digest(image), question=question, **options)
            async with connect(redis_url) as client:
                new = NewJob(uuid4(), image, record, request_id="order-7")
                await DirectQueue(client, model).enqueue(new)
            return str(new.job_id)

        return asyncio.run(enqueue())

    return ask


@pytest.fixture
def finish(redis_of_module: Redis, metrics_url: str) -> Finish:
    """Wait until the worker has ended a job, and return its record."""

    def read(job_id: str) -> JobRecord:
        return read_record(redis_of_module.hgetall(keys.job(job_id)))

    def finish(job_id: str) -> JobRecord:
        wait_until(lambda: read(job_id).status.is_final, f"job {job_id} ends")
        return read(job_id)

    return finish


def tower_runs(metrics_url: str) -> float:
    return values(scrape(metrics_url), "worker_embeddings_total").get(("tower",), 0)


def test_second_question_about_an_image_takes_no_run_of_the_tower(
    ask: Ask, finish: Finish, redis_of_module: Redis, metrics_url: str
) -> None:
    image = make_png(1)
    first = finish(ask(image, CATS))
    runs = tower_runs(metrics_url)

    second = finish(ask(image, PAPERS))

    assert first.result is not None
    assert second.result is not None
    assert {p.label for p in first.result.predictions} == set(CATS.labels)
    assert len(second.result.predictions) == 5
    assert {p.label for p in second.result.predictions} < set(PAPERS.labels)
    assert (first.cached, second.cached) == (False, True)
    assert tower_runs(metrics_url) == runs
    field = first.result.model.cache_field
    assert set(redis_of_module.hkeys(keys.result(image_digest(image)))) == {
        record.cache_fields(field)[0].encode() for record in (first, second)
    }
    assert redis_of_module.hstrlen(keys.embedding(image_digest(image)), field) == 4 * 24
    assert 3500 < int(redis_of_module.ttl(keys.embedding(image_digest(image)))) <= 3600


def test_damaged_embedding_is_ignored_and_replaced(
    ask: Ask, finish: Finish, redis_of_module: Redis, metrics_url: str
) -> None:
    image = make_png(2)
    first = finish(ask(image, CATS))
    assert first.result is not None
    key, field = keys.embedding(image_digest(image)), first.result.model.cache_field
    redis_of_module.hset(key, field, b"damaged")

    second = finish(ask(image, PAPERS))

    assert (second.status, second.cached) == (JobStatus.COMPLETED, False)
    assert redis_of_module.hstrlen(key, field) == 4 * 24


def test_questions_in_flight_together_are_all_answered_with_one_run_for_each_image(
    ask: Ask, finish: Finish, metrics_url: str
) -> None:
    images, runs = [make_png(seed) for seed in (3, 4, 5)], tower_runs(metrics_url)
    questions = [Question(labels=(f"label {number}", "other")) for number in range(6)]

    jobs = {ask(image, question): question for image in images for question in questions}
    records = {job_id: finish(job_id) for job_id in jobs}

    for job_id, record in records.items():
        assert record.result is not None
        assert {p.label for p in record.result.predictions} == set(jobs[job_id].labels)
    assert tower_runs(metrics_url) == runs + len(images)


def test_embedding_of_an_image_is_the_image_towers_also_from_the_cache(
    ask: Ask, finish: Finish, redis_of_module: Redis, metrics_url: str
) -> None:
    image = make_png(10)
    first = finish(ask(image, CATS, embedding=True))
    runs = tower_runs(metrics_url)

    second, plain = finish(ask(image, PAPERS, embedding=True)), finish(ask(image, PAPERS))

    assert first.result is not None
    assert second.result is not None
    assert plain.result is not None
    kept = raw(redis_of_module.hget(keys.embedding(image_digest(image)), first.result.model.cache_field))
    assert first.result.embedding == second.result.embedding == ImageEmbedding.pack(kept)
    assert sum(number**2 for number in first.result.embedding.vector) == pytest.approx(1, abs=1e-5)
    assert (first.cached, second.cached, plain.result.embedding) == (False, True, None)
    assert tower_runs(metrics_url) == runs


def test_top_k_asks_for_more_labels(ask: Ask, finish: Finish, metrics_url: str) -> None:
    record = finish(ask(make_png(6), PAPERS, top_k=7))

    assert record.answer is not None
    assert len(record.answer.predictions) == 7


def test_question_to_a_model_with_labels_fails_with_what_to_do(
    ask: Ask, finish: Finish, worker: object, metrics_url: str
) -> None:
    record = finish(ask(make_png(8), CATS, BUNDLED_MODEL))

    assert record.error is not None
    assert record.status is JobStatus.FAILED
    assert (record.error.code, record.error.detail) == (
        "labels_not_supported",
        "vit-tiny-cifar10 has labels of its own: leave them out, or name a zero-shot model.",
    )


def test_stock_rq_worker_can_answer_a_question(
    ask: Ask, redis_of_module: Redis, redis_url: str, tmp_path: Path
) -> None:
    folder = make_zero_shot(tmp_path / "stock", "siglip")
    job_id = ask(make_png(9), CATS, folder.name, embedding=True)

    command = ["-m", "rq.cli", "worker", "-S", "json", "-w", "rq.worker.SimpleWorker", "--burst", "-u", redis_url]
    variables = {"REDIS_URL": redis_url, "MODEL_ID": str(folder)}
    subprocess.run(
        [sys.executable, *command, f"analysis-{folder.name}"],
        env=os.environ | variables,
        check=True,
        timeout=PATIENCE_S,
    )

    record = read_record(redis_of_module.hgetall(keys.job(job_id)))
    assert record.result is not None
    assert {p.label for p in record.result.predictions} == set(CATS.labels)
    [kept] = redis_of_module.hvals(keys.embedding(record.image_hash))
    assert record.result.embedding == ImageEmbedding.pack(raw(kept))
    kept_by_rq = RqJob.fetch(job_id, connection=redis_of_module, serializer="json").return_value()
    assert kept_by_rq == record.result.model_dump(exclude={"embedding"})
