"""Trainings as a worker takes and ends them, on a real Redis; two at once, without room, or taken over by another."""

import asyncio
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.queue import NewJob
from image_analysis_api.store.client import connect
from image_analysis_common import keys
from image_analysis_common.classifiers import Example, Training
from image_analysis_common.images import image_digest
from image_analysis_common.job_errors import JobTimeout
from image_analysis_common.models import JobFailure, JobStatus
from image_analysis_common.records import JobRecord
from image_analysis_worker.classifiers.store import ClassifierStore
from image_analysis_worker.jobs.batching import InFlight, Job
from image_analysis_worker.jobs.classifying import find_classifiers
from image_analysis_worker.outage import Outage
from image_analysis_worker.rq.batch_worker import BatchWorker
from image_analysis_worker.rq.training import TrainingRun
from image_analysis_worker.threads.shared import Shared
from image_analysis_worker.threads.trainer import Trainer
from image_analysis_worker.threads.watchdog import Watchdog
from support.announcements import MODEL, make_result
from support.classifiers import PLAN, make_classifier, make_vectors, store, to_text
from support.direct import IMAGE_HASH, Client, DirectQueue, take
from support.replies import read_record
from support.waiting import wait_until

HASH = "0" * 64
LABELS = ["cat"] * 6 + ["dog"] * 6


def make_examples(labels: list[str], *, seed: int = 0) -> list[Example]:
    vectors = make_vectors(labels, seed=seed)
    return [
        Example(label=label, image_hash=image_digest(vector.tobytes()), embedding=to_text(vector))
        for label, vector in zip(labels, vectors, strict=True)
    ]


@pytest.fixture
def submit(redis_url: str, redis: Redis, batch_worker: BatchWorker) -> "Submit":
    return Submit(redis_url, batch_worker)


class Submit:
    """Queues trainings as the API does, and takes them as a worker does."""

    def __init__(self, redis_url: str, batch_worker: BatchWorker) -> None:
        self._redis_url, self.batch_worker = redis_url, batch_worker

    def queue(
        self, examples: list[Example], training: Training, room: dict[str, Any] | None = None, owner: str = "ann"
    ) -> str:
        job_id = uuid4()
        plan = PLAN.model_copy(update={"examples": tuple(examples)} | (room or {}))
        record = JobRecord(
            status=JobStatus.PENDING, image_hash=image_digest(job_id.bytes), owner=owner, training=training
        )

        async def enqueue() -> None:
            async with connect(self._redis_url) as client:
                new = NewJob(job_id, plan.model_dump_json().encode(), record, request_id="r")
                await DirectQueue(client, "m").enqueue(new)

        asyncio.run(enqueue())
        return str(job_id)

    def run(
        self,
        examples: list[Example],
        *,
        name: str = "pets",
        adds: bool = False,
        room: dict[str, Any] | None = None,
        owner: str = "ann",
    ) -> TrainingRun:
        self.queue(examples, Training(name=name, adds=adds), room, owner)
        [job] = take(self.batch_worker)
        return self.start(job, Outage(threading.Event()), limit_s=60)

    def start(self, job: Job, outage: Outage, *, limit_s: float) -> TrainingRun:
        return TrainingRun(self.batch_worker, outage, job, MODEL, limit_s=limit_s)


def read(redis: Redis, run: TrainingRun) -> JobRecord:
    return read_record(redis.hgetall(keys.job(run.job.job_id)))


def test_classifier_is_written_together_with_the_end_of_its_job(redis: Redis, submit: Submit) -> None:
    run = submit.run(make_examples(LABELS))

    assert run.advance()
    assert not redis.exists(keys.classifier("ann", "pets"))
    run.finish()

    record, stored = read(redis, run), ClassifierStore(redis).read("ann", "pets")
    assert stored is not None
    assert (record.status, record.trained) == (JobStatus.COMPLETED, stored.about)
    assert stored.about.examples == {"cat": 6, "dog": 6}
    assert redis.hget(keys.classifiers_of("ann"), "pets") is not None
    assert not redis.exists(keys.image(run.job.job_id))
    assert [stage for stage, _, _ in run.job.stages] == ["train"]  # a span of its trace, and a metric
    assert redis.zscore("rq:finished:analysis-m", run.job.job_id)


def test_jobs_of_one_classifier_never_follow_those_of_another(redis: Redis, submit: Submit) -> None:
    """They would get its errors, which name it, and its labels if it is trained again before they run."""
    found = list[JobRecord]()
    for owner, name in (("ann", "pets"), ("ann", "animals"), ("bob", "pets"), ("ann", "pets")):
        run = submit.run(make_examples(LABELS), name=name, owner=owner)
        run.advance()
        run.finish()
        stored = ClassifierStore(redis).read(owner, name)
        assert stored is not None
        found.append(JobRecord(status=JobStatus.PENDING, image_hash=HASH, owner=owner, classifier=stored.ref))

    leaders = [keys.leader("m", record.image_hash, variant=record.variant) for record in found]
    assert len(set(leaders)) == 3
    assert leaders[0] == leaders[3]


def test_two_trainings_that_add_at_once_both_count(redis: Redis, submit: Submit) -> None:
    store(redis, make_classifier(), "ann")
    first = submit.run(make_examples(["cat"], seed=1), adds=True)
    second = submit.run(make_examples(["dog"], seed=2), adds=True)

    for run in (first, second):
        assert run.advance()
    for run in (first, second):
        run.finish()

    trained = read(redis, second).trained
    assert trained is not None
    assert trained.examples == {"cat": 9, "dog": 9}


def test_corrected_example_keeps_its_embedding(redis: Redis, submit: Submit) -> None:
    base = make_classifier(labels=("cat", "dog"))
    store(redis, base, "ann")
    corrected = Example(label="dog", image_hash=next(iter(base.examples)))

    run = submit.run([corrected], adds=True)
    run.advance()
    run.finish()

    trained = read(redis, run).trained
    assert trained is not None
    assert trained.examples == {"cat": 7, "dog": 9}


def test_classifier_that_was_deleted_meanwhile_takes_no_more_examples(redis: Redis, submit: Submit) -> None:
    store(redis, make_classifier(), "ann")
    run = submit.run(make_examples(["cat"]), adds=True)
    run.advance()
    redis.delete(keys.classifier("ann", "pets"), keys.classifiers_of("ann"))

    run.finish()

    error = read(redis, run).error
    assert error is not None
    assert error.code == "classifier_not_found"
    assert not redis.exists(keys.classifier("ann", "pets"))


@pytest.mark.parametrize("limits", [{"max_classifiers": 1}, {"max_bytes": 1000}], ids=["number", "bytes"])
def test_owner_without_room_gets_no_classifier(redis: Redis, submit: Submit, limits: dict[str, int]) -> None:
    store(redis, make_classifier("other"), "ann")

    run = submit.run(make_examples(LABELS), room=limits)
    run.advance()
    run.finish()

    error = read(redis, run).error
    assert error is not None
    assert (error.code, redis.hkeys(keys.classifiers_of("ann"))) == ("too_many_classifiers", [b"other"])


def test_examples_that_have_no_room_are_not_trained_on(redis: Redis, submit: Submit) -> None:
    """Memory and time of a training grow with them."""
    run = submit.run(make_examples(LABELS), room={"max_bytes": 500})
    run.advance()
    run.finish()

    error = read(redis, run).error
    assert error is not None
    assert (error.code, run.job.stages) == ("too_many_classifiers", [])


@pytest.mark.parametrize(
    ("example", "code"),
    [
        (Example(label="cat", image_hash="0" * 64, job_id=str(uuid4())), "embedding_unknown"),
        (
            Example(label="bird", image_hash="0" * 64, embedding=to_text(make_vectors(["bird"])[0])),
            "not_enough_examples",
        ),
        (
            Example(label="cat", image_hash="0" * 64, embedding=to_text(make_vectors(["cat"])[0][:8])),
            "embedding_unknown",
        ),
    ],
    ids=["job that is gone", "label with one example", "embedding of another size"],
)
def test_examples_that_make_no_classifier(redis: Redis, submit: Submit, example: Example, code: str) -> None:
    run = submit.run([*make_examples(LABELS), example])
    run.advance()
    run.finish()

    record = read(redis, run)
    assert record.error is not None
    assert (record.status, record.error.code) == (JobStatus.FAILED, code)
    assert not redis.exists(keys.classifier("ann", "pets"))


def test_embedding_of_another_revision_is_no_example(redis: Redis, submit: Submit) -> None:
    """The workers may have another revision of the model than those that served when the training was sent."""
    earlier, examples = MODEL.model_copy(update={"revision": "r0"}), make_examples(LABELS)
    redis.hset(keys.embedding(examples[0].image_hash), MODEL.cache_field, make_vectors(["cat"])[0].tobytes())

    run = submit.run(examples, room={"model": earlier})
    run.advance()
    run.finish()

    error = read(redis, run).error
    assert error is not None
    assert (error.code, error.detail[:13]) == ("embedding_unknown", "examples[1]: ")
    redis.delete(keys.embedding(examples[0].image_hash))


def test_failed_example_is_named(redis: Redis, submit: Submit) -> None:
    failure = JobFailure(code="corrupt_image", detail="It is damaged.")
    record = JobRecord(status=JobStatus.FAILED, image_hash="a" * 64, error=failure)
    example = str(uuid4())
    redis.hset(keys.job(example), mapping=record.to_hash())
    redis.expire(keys.job(example), 60)

    run = submit.run([*make_examples(LABELS), Example(label="cat", image_hash="a" * 64, job_id=example)])
    run.advance()
    run.finish()

    error = read(redis, run).error
    assert error is not None
    assert (error.code, error.detail) == ("corrupt_image", "examples[12] (SHA-256 aaaaaaaaaaaa...): It is damaged.")


def test_training_that_was_cancelled_before_its_end_writes_nothing(
    redis: Redis, redis_url: str, submit: Submit
) -> None:
    run = submit.run(make_examples(LABELS))
    run.advance()

    async def cancel() -> None:
        async with connect(redis_url) as client:
            await Cancellation(client).cancel(UUID(run.job.job_id), "ann")

    asyncio.run(cancel())
    run.finish()

    assert read(redis, run).status is JobStatus.CANCELLED
    assert not redis.exists(keys.classifier("ann", "pets"))


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.PROCESSING])
def test_training_that_another_worker_has_taken_over_writes_nothing(
    redis: Redis, submit: Submit, status: JobStatus
) -> None:
    run = submit.run(make_examples(LABELS))
    run.advance()
    # What the sweep of another worker does with the job of a dead one; then it may have started the job again.
    redis.hset(keys.job(run.job.job_id), "status", status)
    redis.zrem("rq:wip:analysis-m", f"{run.job.job_id}:{run.job.execution.id}")

    run.finish()

    assert read(redis, run).status is status
    assert not redis.exists(keys.classifier("ann", "pets"))


def test_outage_does_not_count_as_waiting_for_the_examples(redis: Redis, submit: Submit, client: Client) -> None:
    example = Example(label="cat", image_hash=IMAGE_HASH, job_id=client.submit())
    [image] = take(submit.batch_worker)
    submit.queue([*make_examples(LABELS), example], Training(name="pets"))
    [job] = take(submit.batch_worker)
    outage = Outage(threading.Event())
    run, ends_s = submit.start(job, outage, limit_s=0.3), time.monotonic() + 0.4

    outage.record(RedisConnectionError())
    wait_until(lambda: time.monotonic() > ends_s, "the outage outlasts the limit")
    outage.record(None)
    after_outage = run.is_ready()
    wait_until(run.is_ready, "the training has waited for as long as it may")

    assert not after_outage
    assert isinstance(run.job.failure, JobTimeout)
    submit.batch_worker.give_back([image, job])


def test_same_end_is_written_once_if_the_first_answer_was_lost(redis: Redis, submit: Submit) -> None:
    run = submit.run(make_examples(LABELS))
    run.advance()
    run.finish()
    version = redis.hget(keys.classifier("ann", "pets"), "version")

    run.finish()

    assert read(redis, run).status is JobStatus.COMPLETED
    assert redis.hget(keys.classifier("ann", "pets"), "version") == version


def test_training_whose_worker_died_trains_alone(redis: Redis, submit: Submit, batch_worker: BatchWorker) -> None:
    """If it kills its worker again, no other job loses an attempt."""
    job_id = submit.queue(make_examples(LABELS), Training(name="pets"))
    redis.hset(f"rq:job:{job_id}", "retries_left", "2")
    [training] = take(batch_worker)
    image = Job("1", "", JobRecord(status=JobStatus.PROCESSING, image_hash=HASH), b"", 3, is_suspect=False)
    in_flight, stopping = InFlight(4), threading.Event()
    in_flight.add([image])
    shared = Shared(batch_worker, in_flight, Outage(stopping), Watchdog(60), stopping)
    trainer = Trainer(shared, MODEL, limit_s=60)
    trainer.add([training])

    trainer.start()
    wait_until(lambda: in_flight.wait_for_room(0) == 0, "the training asks to be alone")
    waiting = redis.hget(keys.job(training.job_id), "status")
    in_flight.remove([image])
    wait_until(lambda: in_flight.wait_for_room(0) == 4, "other jobs fit again")
    stopping.set()
    trainer.join()

    assert training.is_suspect
    assert (waiting, redis.hget(keys.job(training.job_id), "status")) == (b"PROCESSING", b"COMPLETED")


def test_deleting_a_job_that_a_newer_classifier_answered_leaves_the_results_of_others(
    redis: Redis, client: Client, batch_worker: BatchWorker
) -> None:
    job_id = client.submit()
    redis.hset(keys.result(IMAGE_HASH), "m@r#1", "the result of another owner's job")
    redis.set(keys.answered(IMAGE_HASH), 1, ex=60)
    redis.expire(keys.result(IMAGE_HASH), 60)
    [job] = take(batch_worker)
    job.classifier = make_classifier()  # not the one of the record, so the answer is not cached
    job.end(make_result())

    batch_worker.finish([job])
    client.cancel(job_id)

    assert not redis.exists(keys.job(job_id))
    assert redis.hgetall(keys.result(IMAGE_HASH)) == {b"m@r#1": b"the result of another owner's job"}


def test_head_is_read_again_only_after_a_training(redis: Redis) -> None:
    classifiers = ClassifierStore(redis)
    store(redis, make_classifier(), "ann")

    first, again = classifiers.find("ann", "pets"), classifiers.find("ann", "pets")
    store(redis, make_classifier(labels=("cat", "dog", "tree")), "ann")
    newer = classifiers.find("ann", "pets")
    redis.delete(keys.classifier("ann", "pets"), keys.classifiers_of("ann"))

    assert first is again
    assert newer is not None
    assert newer.about.labels == ["cat", "dog", "tree"]
    assert classifiers.find("ann", "pets") is None


def test_damaged_classifier_ends_its_jobs_with_what_to_do(redis: Redis) -> None:
    stored = make_classifier()
    store(redis, stored, "ann")
    redis.hset(keys.classifier("ann", "pets"), "head", b"damaged")
    record = JobRecord(status=JobStatus.PROCESSING, image_hash="0" * 64, owner="ann", classifier=stored.ref)
    job = Job("1", "", record, b"image", attempts_left=3, is_suspect=False)

    find_classifiers(ClassifierStore(redis), [job])

    assert "train it again" in str(job.failure)
    redis.delete(keys.classifier("ann", "pets"), keys.classifiers_of("ann"))
