"""Forms as people fill them in: empty fields, misspelt ones, and files under another name."""

from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from support.announcements import QUEUE_KEY
from support.fakes import FakeFetcher
from support.replies import read_record
from support.samples import make_png

pytestmark = pytest.mark.anyio

IMAGE, OTHER = make_png(1), make_png(2)
URL = "http://images.example/2.png"
EMPTY = dict.fromkeys(("model", "top_k", "min_confidence", "priority", "webhook_url"), "")
NO_FILE = ("", b"")
"""What a browser sends of an input of files in which none was chosen."""

SINGLE: dict[str, tuple[dict[str, Any], bytes]] = {
    "a file": ({"files": {"file": IMAGE}, "data": EMPTY | {"image_url": ""}}, IMAGE),
    "a URL": ({"files": {"file": NO_FILE}, "data": EMPTY | {"image_url": URL}}, OTHER),
    "a URL and an empty text": ({"files": {"file": (None, b"")}, "data": {"image_url": URL}}, OTHER),
    "a URL and an empty file": ({"files": {"file": ("cat.png", b"")}, "data": {"image_url": URL}}, OTHER),
    "empty options in the query": ({"files": {"file": IMAGE}, "params": EMPTY}, IMAGE),
    "an image, empty options in the query": (
        {"content": IMAGE, "headers": {"Content-Type": "image/png"}, "params": EMPTY},
        IMAGE,
    ),
}


@pytest.mark.parametrize("case", SINGLE)
async def test_empty_fields_count_as_not_set(
    client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher, case: str
) -> None:
    fetcher.answers[URL] = OTHER
    sent, image = SINGLE[case]

    answer = await client.post("/analyze-image", **sent)

    assert answer.status_code == 202, answer.text
    record = read_record(await redis.hgetall(keys.job(answer.json()["job_id"])))
    assert (record.image_hash, record.model) == (image_digest(image), None)
    assert (record.top_k, record.min_confidence, record.webhook_url) == (None, None, None)


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
async def test_name_of_a_file_in_place_of_the_file_says_what_to_send(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, files={"file": (None, b"cat.jpg")})  # as curl does for -F file=cat.jpg

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"] == "The part file is a text: send the bytes of a file, with curl -F file=@PATH."


async def test_empty_field_leaves_the_option_to_the_query(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    answer = await client.post("/analyze-image", files={"file": IMAGE}, data={"top_k": ""}, params={"top_k": "7"})

    assert read_record(await redis.hgetall(keys.job(answer.json()["job_id"]))).top_k == 7


async def test_empty_fields_of_a_batch_count_as_not_set(
    client: httpx.AsyncClient, redis: FakeRedis, fetcher: FakeFetcher
) -> None:
    fetcher.answers[URL] = OTHER
    files: list[tuple[str, tuple[str, bytes]]] = [
        ("file", NO_FILE),
        ("file", ("cat.png", IMAGE)),
        ("file", ("empty.png", b"")),
    ]

    answer = await client.post("/analyze-images", files=files, data=EMPTY | {"image_url": ["", URL]})

    assert answer.status_code == 202, answer.text
    jobs = answer.json()["jobs"]
    assert [job["error"] and job["error"]["code"] for job in jobs] == [None, "unsupported_image", None]
    hashes = [read_record(await redis.hgetall(keys.job(jobs[index]["job_id"]))).image_hash for index in (0, 2)]
    assert hashes == [image_digest(IMAGE), image_digest(OTHER)]


FIELDS = (
    "file, image_url, model, top_k, min_confidence, priority, webhook_url, labels, hypothesis_template, embedding, "
    "classifier."
)
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing chosen": ({"files": {"file": NO_FILE}, "data": EMPTY}, "Send exactly one image in the form"),
    "misspelt option": (
        {"files": {"file": IMAGE}, "data": {"topk": "3"}},
        f"The form has an unknown field, topk: its fields are {FIELDS}",
    ),
    "empty misspelt option": ({"files": {"file": IMAGE}, "data": {"topk": ""}}, "an unknown field, topk:"),
    "field of JSON": ({"files": {"file": IMAGE}, "data": {"image_data": "x"}}, "an unknown field, image_data:"),
    "name that is not plain": (
        {"files": {"file": IMAGE}, "data": {"<b>": "3"}},
        f"The form has an unknown field: its fields are {FIELDS}",
    ),
    "file in image": (
        {"files": {"image": IMAGE}},
        "The form has a file in its part image: send an image as the part file.",
    ),
    "file in files": (
        {"files": [("files", IMAGE), ("files", OTHER)]},
        "its part files: send an image as the part file.",
    ),
    "file in <b>": ({"files": {"<b>": IMAGE}}, "a part with another name: send an image as the part file."),
    "large file in image": ({"files": {"image": bytes(5000)}}, "send an image as the part file."),
    "large text in image": ({"files": {"image": (None, bytes(5000))}}, "send an image as the part file."),
}


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_in_a_form_is_named(client: httpx.AsyncClient, redis: FakeRedis, path: str, mistake: str) -> None:
    sent, detail = MISTAKES[mistake]
    if (path, mistake) == ("/analyze-images", "nothing chosen"):
        detail = "There is no image"

    answer = await client.post(path, **sent)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert detail in answer.json()["detail"]
    assert not await redis.exists(QUEUE_KEY)


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
async def test_empty_files_are_limited(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, files=[("file", NO_FILE)] * 200 + [("file", ("cat.png", IMAGE))])

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The form has too many parts: send at most ")


async def test_unknown_field_in_json_is_named(client: httpx.AsyncClient) -> None:
    single = await client.post("/analyze-image", json={"image_data": "x", "topk": 3})
    batch = await client.post("/analyze-images", json={"images": [{"image_data": "x"}], "topk": 3})
    odd = await client.post("/analyze-image", json={"image_data": "x", "<b>": 3})

    options = FIELDS.removeprefix("file, image_url, ")
    assert single.json()["detail"] == (
        f"The body has an unknown field, topk: its fields are image_data, image_url, {options}"
    )
    assert batch.json()["detail"] == f"The body has an unknown field, topk: its fields are images, {options}"
    assert odd.json()["detail"].startswith("The body has an unknown field: its fields are image_data,")
