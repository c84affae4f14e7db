"""Classifiers from folders of photos: the Python client and the command line against the running stack."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from image_analysis_api.settings import ApiSettings
from image_analysis_client import AsyncClient, Client, ExamplesFailed, NotFound
from stack import Stack
from support.classifiers import forget_classifiers
from support.samples import CHELSEA, encode, make_image, make_png
from support.terminals import run_in_terminal, run_piped

COUNT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders: pieces of a cat's photo, and colors."""
    folder = tmp_path_factory.mktemp("labels")
    cat = Image.open(CHELSEA).convert("RGB")
    for label in ("fur", "größe 🐕"):
        (folder / label).mkdir()
    for number in range(COUNT):
        piece = cat.crop((10 * number, 5 * number, 10 * number + 200, 5 * number + 200))
        (folder / "fur" / f"{number}.png").write_bytes(encode(piece, "PNG"))
        (folder / "größe 🐕" / f"{number}.png").write_bytes(make_png(700 + number))
    return folder


@pytest.fixture(autouse=True)
def forgotten(client: httpx.Client) -> Iterator[None]:
    """There are no classifiers before a test and after it: other tests of the stack leave some."""
    forget_classifiers(client)
    yield
    forget_classifiers(client)


def examples(folder: Path) -> dict[str, list[Path]]:
    return {label.name: sorted(label.iterdir()) for label in folder.iterdir()}


def test_client_teaches_asks_corrects_and_deletes(stack: Stack, folder: Path) -> None:
    with Client(stack.api_url) as client:
        taught = client.teach("pets", examples(folder))
        job = client.submit(make_png(710), classifier="pets")
        result = job.wait()
        corrected = client.correct("pets", job.id, "fur")
        added = client.teach("pets", {"fur": [make_png(711)]}, adds=True)
        listed = client.classifiers()
        client.delete_classifier("pets")
        with pytest.raises(NotFound) as missing:
            client.classify(CHELSEA, classifier="pets")

    assert (taught.name, taught.examples) == ("pets", {"fur": COUNT, "größe 🐕": COUNT})
    assert taught.accuracy > 0.8
    assert {found.label for found in result.predictions} == {"fur", "größe 🐕", "none of these"}
    assert corrected.examples == {"fur": COUNT + 1, "größe 🐕": COUNT}
    assert added.examples == {"fur": COUNT + 2, "größe 🐕": COUNT}
    assert listed == [added]
    assert missing.value.code == "classifier_not_found"


@pytest.mark.anyio
async def test_asynchronous_client_teaches_alike(stack: Stack, folder: Path) -> None:
    async with AsyncClient(stack.api_url) as client:
        taught = await client.teach("pets", examples(folder))
        found = await client.classifier("pets")

    assert (found, taught.examples) == (taught, {"fur": COUNT, "größe 🐕": COUNT})


def test_bad_file_is_named_and_nothing_is_trained(stack: Stack, client: httpx.Client, folder: Path) -> None:
    bad = encode(Image.open(CHELSEA), "PNG")[:3000]

    with Client(stack.api_url) as teacher, pytest.raises(ExamplesFailed) as refused:
        teacher.teach("pets", examples(folder) | {"bad": [bad] * 5})

    assert [label for label, _ in refused.value.failed] == ["bad"] * 5
    assert client.get("/classifiers").json() == {"classifiers": []}


def test_examples_of_more_bytes_than_a_request_may_have_are_sent_in_parts(stack: Stack) -> None:
    images = [make_image(number, size_px=(1600, 1600)) for number in range(720, 730)]
    files = [encode(image, "BMP") for image in images]
    assert sum(map(len, files)) > ApiSettings.model_fields["max_batch_bytes"].default

    with Client(stack.api_url) as client:
        taught = client.teach("large", {"some": files[:5], "more": files[5:]})

    assert taught.examples == {"some": 5, "more": 5}


def test_command_line_teaches_and_asks(stack: Stack, client: httpx.Client, folder: Path) -> None:
    with run_in_terminal(stack.api_url, "teach", "pets", str(folder)) as terminal:
        code = terminal.wait()
    asked = run_piped(stack.api_url, "classify", str(folder / "fur" / "0.png"), "--classifier", "pets")
    listed = run_piped(stack.api_url, "classifiers")
    deleted = run_piped(stack.api_url, "classifiers", "--delete", "pets")
    missing = run_piped(stack.api_url, "classify", str(CHELSEA), "--classifier", "pets")

    assert code == 0
    for words in (
        f"{2 * COUNT} images: fur {COUNT}, größe 🐕 {COUNT}.",
        f"of {2 * COUNT} images were right.",
        "Use it: image-analysis classify --classifier pets IMAGE...",
    ):
        assert words in terminal.shown
    assert (asked.returncode, json.loads(asked.stdout)["result"]["label"]) == (0, "fur")
    assert json.loads(listed.stdout)["examples"] == {"fur": COUNT, "größe 🐕": COUNT}
    assert (deleted.returncode, missing.returncode) == (0, 2)
    assert b"You have no classifier called pets" in missing.stderr
