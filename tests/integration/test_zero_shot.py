"""Zero-shot checkpoints give the pipeline's answers, with one run of the image tower for each image."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import REGISTRY
from transformers import pipeline

from image_analysis_common.images import image_digest
from image_analysis_common.job_errors import LabelsRequired
from image_analysis_common.models import JobStatus, Question
from image_analysis_common.records import JobRecord
from image_analysis_worker.engines.checkpoint import find_checkpoint
from image_analysis_worker.engines.models import load_zero_shot
from image_analysis_worker.engines.zero_shot import ZeroShotEngine
from image_analysis_worker.jobs.batching import Embedding, Job
from image_analysis_worker.settings import WorkerSettings
from support.samples import CHELSEA, encode, make_image, make_jpeg
from support.scraping import values
from support.zero_shot import ZERO_SHOT, make_zero_shot

IMAGES = [
    CHELSEA.read_bytes(),
    encode(make_image(1, size_px=(90, 700))),
    make_jpeg(2, size_px=(640, 480)),
    encode(make_image(3, size_px=(5, 7))),
]
QUESTIONS = [
    Question(labels=("a cat", "a dog", "receipt", "Ünïcödé 🐈", "ship on the sea")),
    Question(labels=("passport",)),
    Question(labels=("dog", "a cat", "bird"), hypothesis_template="{}"),
    Question(labels=tuple(f"number {number}" for number in range(40)), hypothesis_template="not a {}, is it?"),
]


def load(folder: Path, **settings: Any) -> ZeroShotEngine:
    return load_zero_shot(find_checkpoint(str(folder)), WorkerSettings(**settings))


def make_job(image: bytes, question: Question | None) -> Job:
    record = JobRecord(status=JobStatus.PROCESSING, image_hash=image_digest(image), question=question)
    return Job("1", "r", record, image, attempts_left=3, is_suspect=False)


def answer(model: ZeroShotEngine, jobs: Sequence[Job]) -> list[dict[str, float]]:
    """Return the confidence in each label, as one batch answers the jobs."""
    with closing(model.open_decoder()) as decoder:
        inputs = [model.prepare(job, decoder) for job in jobs]
    return [{p.label: p.confidence for p in predictions} for predictions in model.classify(inputs, 1000)]


class Pipeline:
    """The transformers pipeline: every answer must equal its answer."""

    def __init__(self, folder: Path) -> None:
        self._pipeline: Callable[..., list[dict[str, Any]]] = pipeline(
            "zero-shot-image-classification", model=str(folder)
        )
        self._answers: dict[tuple[bytes, Question], dict[str, float]] = {}

    def answer(self, image: bytes, question: Question) -> dict[str, float]:
        """Return the confidence in each label, best first."""
        if (image, question) not in self._answers:
            found = self._pipeline(
                Image.open(BytesIO(image)).convert("RGB"),
                candidate_labels=list(question.labels),
                hypothesis_template=question.hypothesis_template,
            )
            self._answers[image, question] = {entry["label"]: entry["score"] for entry in found}
        return self._answers[image, question]


@pytest.fixture(scope="module", params=ZERO_SHOT)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zero_shot(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return Pipeline(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> ZeroShotEngine:
    # A JPEG that is decoded at a fraction of its size gives almost the same input: test_reduced_decoding says how far.
    return load(folder, reduced_decoding=False)


class NoDecoder:
    """Fails a test that decodes an image."""

    def decode(self, body: bytes) -> Any:
        raise AssertionError("decoded")


def sources() -> Counter[str]:
    """Return how many jobs got the embedding of their image from where."""
    found = values(REGISTRY.collect(), "worker_embeddings_total")
    return Counter({source: int(jobs) for (source,), jobs in found.items()})


def test_every_question_gets_the_pipelines_own_answer(model: ZeroShotEngine, pipe: Pipeline) -> None:
    spreads = []
    for image in IMAGES:
        for question in QUESTIONS:
            [found] = answer(model, [make_job(image, question)])
            assert found == pytest.approx(pipe.answer(image, question), abs=1e-5)
            spreads.append(max(found.values()) - min(found.values()))

    # The answers differ enough to be told apart.
    assert max(spreads) > 0.05


def test_batch_with_different_questions_gives_the_same_answers_and_runs_the_tower_once_for_each_image(
    folder: Path, model: ZeroShotEngine, pipe: Pipeline
) -> None:
    asked = [(image, question) for image in IMAGES for question in QUESTIONS]
    fresh, before = load(folder, reduced_decoding=False), sources()

    found = answer(fresh, [make_job(*pair) for pair in asked])

    for pair, confidences in zip(asked, found, strict=True):
        assert confidences == pytest.approx(pipe.answer(*pair), abs=1e-5)
    assert sources() - before == Counter(tower=len(IMAGES), recent=len(asked) - len(IMAGES))


def test_known_image_is_neither_decoded_nor_put_through_the_tower(model: ZeroShotEngine, pipe: Pipeline) -> None:
    first, second = (make_job(IMAGES[0], question) for question in QUESTIONS[:2])
    answer(model, [first])
    assert first.embedding is not None
    second.embedding, before = Embedding(first.embedding.values, is_cached=True), sources()

    found = model.classify([model.prepare(second, NoDecoder())], 1000)[0]

    assert {p.label: p.confidence for p in found} == pytest.approx(pipe.answer(IMAGES[0], QUESTIONS[1]), abs=1e-5)
    assert sources() - before == Counter(cache=1)
    assert second.embedding.is_cached


@pytest.mark.parametrize("damaged", [b"", b"\0" * 7, b"\0\0\xc0\x7f" * 24, b"\0" * 4 * 24, b"\0" * 4 * 32])
def test_damaged_embedding_is_ignored_and_replaced(model: ZeroShotEngine, pipe: Pipeline, damaged: bytes) -> None:
    job = make_job(IMAGES[1], QUESTIONS[0])
    job.embedding = Embedding(damaged, is_cached=True)

    [found] = answer(model, [job])

    assert found == pytest.approx(pipe.answer(IMAGES[1], QUESTIONS[0]), abs=1e-5)
    assert job.embedding is not None
    assert (job.embedding.is_cached, job.embedding.values == damaged) == (False, False)


def test_images_in_flight_one_after_another_share_one_run_of_the_tower(model: ZeroShotEngine) -> None:
    image = encode(make_image(77))
    with closing(model.open_decoder()) as decoder:
        first, second = (model.prepare(make_job(image, question), decoder) for question in QUESTIONS[:2])
    before = sources()

    model.classify([first])
    model.classify([second])

    assert sources() - before == Counter(tower=1, recent=1)


def test_hostile_labels_are_answered(model: ZeroShotEngine) -> None:
    labels = ("x" * 1000, "🐈" * 1000, "\0\x1b[31m\n", " ", "{0.__class__}", "<|endoftext|>" * 50, "</s> <eos>")
    question = Question(labels=labels, hypothesis_template="{} {{}} {0}")

    [found] = answer(model, [make_job(IMAGES[0], question)])

    assert found.keys() == set(labels)


def test_best_five_labels_are_the_answer(model: ZeroShotEngine, pipe: Pipeline) -> None:
    with closing(model.open_decoder()) as decoder:
        job = make_job(IMAGES[0], QUESTIONS[3])
        [found] = model.classify([model.prepare(job, decoder)], job.top_k)

    assert [p.label for p in found] == list(pipe.answer(IMAGES[0], QUESTIONS[3]))[:5]


def test_announcement_names_the_task_and_no_labels(folder: Path, model: ZeroShotEngine) -> None:
    announced = model.warm_up()

    assert (announced.task, announced.labels, announced.embeds) == ("zero-shot-image-classification", [], True)
    assert announced.function_to_apply == ("softmax" if folder.name == "clip" else "sigmoid")
    assert (announced.backend, announced.dtype) == ("torch", "float32")


def test_bfloat16_is_close_and_has_answers_of_its_own_in_the_cache(folder: Path, model: ZeroShotEngine) -> None:
    half = load(folder, dtype="bfloat16", reduced_decoding=False)
    [exact], [rounded] = (answer(engine, [make_job(IMAGES[0], QUESTIONS[0])]) for engine in (model, half))

    assert rounded == pytest.approx(exact, abs=0.05)
    assert half.ref.cache_field == f"{model.ref.cache_field}/bfloat16"


def test_job_without_labels_fails_with_a_code(model: ZeroShotEngine) -> None:
    with pytest.raises(LabelsRequired, match=f"{model.ref.id} has no labels of its own"):
        model.prepare(make_job(IMAGES[0], None), NoDecoder())
