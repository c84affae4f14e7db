"""Classifiers from the Python client: what is sent for them, and what is refused before anything is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from image_analysis_client import (
    AsyncClient,
    BadRequest,
    Client,
    ExamplesFailed,
    JobFailed,
    NotFound,
    WaitTimeout,
)
from support.fake_service import URL, FakeService, make_classifier, problem

CLIP = {
    "id": "clip",
    "revision": "1",
    "task": "zero-shot-image-classification",
    "labels_count": 0,
    "accuracy": None,
    "backend": "torch",
    "device": "cpu",
    "precision": "float32",
    "max_batch_size": 1,
    "inference_ms": 1,
    "trains": True,
    "workers": 1,
    "queue_depth": 0,
}
BATCH = ("POST", "analyze-images")
TRAINING = ("PUT", "classifiers")


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, list[Path]]:
    """Six photos of cats, five of dogs."""
    photos = {"cat": [tmp_path / f"cat{n}.png" for n in range(6)], "dog": [tmp_path / f"dog{n}.png" for n in range(5)]}
    for path in (path for paths in photos.values() for path in paths):
        path.write_bytes(path.name.encode())
    return photos


def sent_examples(request: httpx.Request) -> list[dict[str, str]]:
    examples: list[dict[str, str]] = json.loads(request.read())["examples"]
    return examples


def test_photos_are_embedded_in_batches_and_the_training_names_their_jobs(
    service: FakeService, photos: dict[str, list[Path]]
) -> None:
    with Client(URL) as client:
        classifier = client.teach("pets", photos, model="acme/vit")

    [training] = service.trainings
    assert (training.method, str(training.url)) == ("PUT", f"{URL}/classifiers/pets?model=acme%2Fvit")
    assert [example["label"] for example in sent_examples(training)] == ["cat"] * 6 + ["dog"] * 5
    assert {UUID(example["job_id"]) for example in sent_examples(training)} < set(service.statuses)
    assert len({example["job_id"] for example in sent_examples(training)}) == 11
    assert service.batches == [11]
    assert b'name="embedding"\r\n\r\ntrue\r\n' in service.forms[0].content
    assert b'name="model"\r\n\r\nacme/vit\r\n' in service.forms[0].content
    assert (classifier.name, classifier.examples, classifier.accuracy) == ("pets", {"cat": 6, "dog": 5}, 10 / 11)
    assert classifier.confusion.counts == [[5, 1], [0, 5]]
    assert classifier.most_confused == ("cat", "dog", 1)
    assert training.headers["Idempotency-Key"]


@pytest.mark.anyio
async def test_asynchronous_client_teaches_lists_and_deletes_alike(
    service: FakeService, photos: dict[str, list[Path]]
) -> None:
    async with AsyncClient(URL) as client:
        classifier = await client.teach("pets", photos)
        corrected = await client.correct("pets", uuid4(), "dog")
        listed, found = await client.classifiers(), await client.classifier("pets")
        await client.delete_classifier("pets")
        assert await client.classifiers() == []

    assert classifier.examples == {"cat": 6, "dog": 5}
    assert (listed, found, corrected.examples) == ([corrected], corrected, {"cat": 6, "dog": 6})


def test_pairs_keep_their_order_whatever_ends_first(service: FakeService) -> None:
    image, job_id = b"the same bytes twice", uuid4()
    pairs: Any = [("a", image), ("b", b"2"), ("a", job_id), ("b", image)] + [("a", b"3"), ("b", b"4")] * 4

    with Client(URL) as client:
        client.teach("letters", iter(pairs))

    examples = sent_examples(service.trainings[0])
    assert [example["label"] for example in examples] == [label for label, _ in pairs]
    assert examples[2]["job_id"] == str(job_id)
    assert service.batches == [len(pairs) - 1]


def test_examples_are_added_for_the_model_that_the_classifier_has(service: FakeService) -> None:
    service.classifiers["pets"] = make_classifier("pets", {"cat": 5, "dog": 5})

    with Client(URL) as client:
        classifier = client.teach("pets", {"dog": [b"image"]}, adds=True)

    [training] = service.trainings
    assert (training.method, str(training.url)) == ("POST", f"{URL}/classifiers/pets/examples?model=m")
    assert b'name="model"\r\n\r\nm\r\n' in service.forms[0].content
    assert classifier.examples == {"cat": 5, "dog": 6}


def test_wrong_answer_is_corrected_by_its_job(service: FakeService) -> None:
    service.classifiers["pets"] = make_classifier("pets", {"cat": 5, "dog": 5})

    with Client(URL) as client:
        job = client.submit(b"image", classifier="pets")
        client.correct("pets", str(job.id), "dog")

    assert sent_examples(service.trainings[0]) == [{"label": "dog", "job_id": str(job.id)}]
    assert b'name="classifier"\r\n\r\npets\r\n' in service.forms[0].content
    assert service.batches == []


def test_every_bad_example_is_named_and_nothing_is_trained(service: FakeService, photos: dict[str, list[Path]]) -> None:
    photos["cat"][2].unlink()
    service.refused_images.append("corrupt_image")

    with Client(URL) as client, pytest.raises(ExamplesFailed) as refused:
        client.teach("pets", photos)

    assert {(label, str(outcome.source)) for label, outcome in refused.value.failed} == {
        ("cat", str(photos["cat"][0])),
        ("cat", str(photos["cat"][2])),
    }
    assert str(refused.value).startswith(f"2 of 11 examples cannot be used, the first is {photos['cat'][2]}: ")
    assert service.trainings == []


def test_bad_bytes_are_named_by_their_label(service: FakeService) -> None:
    service.refused_images.append("corrupt_image")

    with (
        Client(URL) as client,
        pytest.raises(ExamplesFailed, match="the first is an image of the label cat: It failed"),
    ):
        client.teach("pets", {"cat": [b"%d" % n for n in range(5)], "dog": [b"%d" % n for n in range(5)]})


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({}, "A classifier needs 2 to 50 labels, not 0."),
        ({"cat": 5}, "A classifier needs 2 to 50 labels, not 1."),
        ({str(n): 5 for n in range(51)}, "A classifier needs 2 to 50 labels, not 51."),
        ({"cat": 5, "dog": 4}, "The label 'dog' needs 5 to 200 examples, not 4."),
        ({str(n): 200 for n in range(40)}, "There are 8000 examples: send 6600 at most, then add the other ones."),
        (
            {f"a, [{n}]": 200 for n in range(20)},
            "There are 4000 examples: send 3960 at most, then add the other ones.",
        ),
        ({"cat": 201, "dog": 5}, "The label 'cat' needs 5 to 200 examples, not 201."),
    ],
)
def test_too_few_or_too_many_examples_are_refused_before_anything_is_sent(
    service: FakeService, counts: dict[str, int], reason: str
) -> None:
    with Client(URL) as client, pytest.raises(ValueError, match=f"^{reason}$"):
        client.teach("pets", {label: [b"image"] * count for label, count in counts.items()})

    assert service.requests == []


def test_single_image_in_place_of_a_list_is_refused(service: FakeService, tmp_path: Path) -> None:
    for image in ("cat.png", b"image", tmp_path):
        with Client(URL) as client, pytest.raises(TypeError, match="The images of the label 'cat' must be a list"):
            client.teach("pets", {"cat": image})  # type: ignore[arg-type]

    assert service.requests == []


@pytest.mark.parametrize(
    ("fault", "adds"),
    [
        (problem(400, "invalid_classifier_name"), False),
        (problem(404, "not_found"), False),  # a service of an earlier release
        (problem(404, "classifier_not_found"), True),
    ],
)
def test_wrong_name_is_refused_before_the_photos_are_sent(
    service: FakeService, photos: dict[str, list[Path]], fault: httpx.Response, *, adds: bool
) -> None:
    service.fail("GET", "classifiers", fault)

    with Client(URL) as client, pytest.raises((BadRequest, NotFound)) as refused:
        client.teach("pets", photos, adds=adds)

    assert (refused.value.code, service.requests) == (
        json.loads(fault.content)["code"],
        [("GET", "classifiers")],
    )


def test_model_that_cannot_embed_is_an_error_of_the_call(service: FakeService, photos: dict[str, list[Path]]) -> None:
    service.fail(*BATCH, problem(400, "embeddings_not_supported"))

    with Client(URL) as client, pytest.raises(BadRequest) as refused:
        client.teach("pets", photos)

    assert (refused.value.code, service.trainings) == ("embeddings_not_supported", [])


def test_nothing_is_sent_to_a_model_whose_workers_cannot_train(
    service: FakeService, photos: dict[str, list[Path]]
) -> None:
    service.fail("GET", "models", httpx.Response(200, json={"models": [CLIP | {"is_default": True, "trains": False}]}))

    with Client(URL) as client, pytest.raises(BadRequest, match="The workers of clip cannot train") as refused:
        client.teach("pets", photos)

    assert (refused.value.code, service.batches, service.trainings) == ("training_not_supported", [], [])


@pytest.mark.parametrize(("model", "is_default"), [("clip", False), (None, True)])
def test_zero_shot_model_embeds_with_a_label(
    service: FakeService, photos: dict[str, list[Path]], model: str | None, *, is_default: bool
) -> None:
    listed = httpx.Response(200, json={"models": [CLIP | {"is_default": is_default}]})
    service.fail("GET", "models", listed, listed)

    with Client(URL) as client:
        client.teach("pets", photos, model=model)

    assert b'name="labels"\r\n\r\nimage\r\n' in service.forms[0].content


def test_failed_training_is_an_error_with_its_code(service: FakeService, photos: dict[str, list[Path]]) -> None:
    job_id = str(uuid4())
    error = {"code": "embedding_unknown", "detail": "The example 3 is unknown."}
    service.fail(*TRAINING, httpx.Response(202, json={"job_id": job_id, "status": "PENDING", "classifier": "pets"}))
    failed = {"job_id": job_id, "status": "FAILED", "error": error}
    pending = {"job_id": job_id, "status": "PENDING"}
    service.fail("GET", "analysis-status", httpx.Response(200, json=pending), httpx.Response(200, json=failed))

    with Client(URL) as client, pytest.raises(JobFailed, match="The example 3 is unknown") as ended:
        client.teach("pets", photos)

    assert (ended.value.code, str(ended.value.job_id)) == ("embedding_unknown", job_id)


def test_training_that_takes_too_long_goes_on(service: FakeService, photos: dict[str, list[Path]]) -> None:
    job_id = str(uuid4())
    service.fail("GET", "analysis-status", httpx.Response(200, json={"job_id": job_id, "status": "PROCESSING"}))

    with Client(URL) as client, pytest.raises(WaitTimeout):
        client.teach("pets", photos, wait_timeout=0)


def test_lost_answer_to_the_training_is_asked_for_with_the_same_key(
    service: FakeService, photos: dict[str, list[Path]]
) -> None:
    service.fail(*TRAINING, httpx.ReadError("the connection broke"))

    with Client(URL) as client:
        client.teach("pets", photos)

    assert Counter(service.requests)[TRAINING] == 2
    assert len(set(service.keys)) == len(service.keys) - 1


def test_photos_above_the_quota_are_sent_as_it_allows(service: FakeService) -> None:
    service.max_images = 4
    cats, dogs = ([b"%d %d" % (label, n) for n in range(5)] for label in range(2))

    with Client(URL) as client:
        classifier = client.teach("pets", {"cat": cats, "dog": dogs})

    assert classifier.examples == {"cat": 5, "dog": 5}
    assert (sum(service.batches), max(service.batches) <= 4) == (10, True)
