"""The labels of a zero-shot question: where they can be sent, what they may be, and which models take them."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_api.intake.labels import LABELS_RULE, MAX_LABELS_BYTES, TEMPLATE_RULE
from image_analysis_api.intake.schemas import Options
from image_analysis_api.intake.submissions import Submission
from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import ZERO_SHOT, ModelRef, Question, Task
from support.announcements import MODEL, QUEUE_KEY, announce
from support.replies import read_record
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

IMAGE = make_png(1)
PNG = {"Content-Type": "image/png"}
FILE = {"file": ("cat.png", IMAGE, "image/png")}
LABELS = ["a cat", "a dog", "größe 🐕"]
TEMPLATE = "A sketch of {}"
TEXT = {"labels": "a cat, a dog ,größe 🐕", "hypothesis_template": TEMPLATE}
SEVERAL = {"labels": LABELS, "hypothesis_template": TEMPLATE}
PADDED = [" a cat", "a dog\t", "größe 🐕"]
WAYS: dict[str, dict[str, Any]] = {
    "JSON": {"json": base64_body(IMAGE) | SEVERAL | {"labels": PADDED}},
    "JSON and query": {"json": base64_body(IMAGE) | {"labels": LABELS}, "params": TEXT | {"labels": "x,y"}},
    "form, one field": {"files": FILE, "data": TEXT},
    "form, several fields": {"files": FILE, "data": SEVERAL | {"labels": [*PADDED, ""]}},
    "form and query": {"files": FILE, "data": {"hypothesis_template": TEMPLATE, "labels": ""}, "params": TEXT},
    "query, once": {"content": IMAGE, "params": TEXT, "headers": PNG},
    "query, several times": {"content": IMAGE, "params": SEVERAL, "headers": PNG},
}


async def question(redis: FakeRedis, answer: httpx.Response) -> Question | None:
    assert answer.status_code == 202, answer.text
    return read_record(await redis.hgetall(keys.job(answer.json()["job_id"]))).question


@pytest.mark.parametrize("way", WAYS)
async def test_labels_mean_the_same_however_they_come(client: httpx.AsyncClient, redis: FakeRedis, way: str) -> None:
    answer = await client.post("/analyze-image", **WAYS[way])

    expected = Question(labels=tuple(LABELS), hypothesis_template=TEMPLATE)
    assert await question(redis, answer) == expected


async def test_labels_go_with_every_image_of_a_batch(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    images = [base64_body(make_png(number)) for number in range(2)]
    ways: list[dict[str, Any]] = [
        {"json": {"images": images, "labels": LABELS}},
        {"files": [("file", make_png(number)) for number in range(2)], "data": {"labels": LABELS}},
        {"json": {"images": images}, "params": {"labels": TEXT["labels"]}},
    ]

    for way in ways:
        answer = await client.post("/analyze-images", **way)

        for job in answer.json()["jobs"]:
            record = read_record(await redis.hgetall(keys.job(job["job_id"])))
            assert record.question == Question(labels=tuple(LABELS))


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["red, green"], ("red", "green")),
        (["red, green", "blue"], ("red, green", "blue")),
        (["red, green", ""], ("red, green",)),
        (["cat"], ("cat",)),
        ([""], None),
        (["", ""], None),
    ],
)
@pytest.mark.parametrize("way", ["data", "params"])
async def test_one_text_is_split_at_its_commas_and_several_are_one_label_each(
    client: httpx.AsyncClient, redis: FakeRedis, way: str, texts: list[str], labels: tuple[str, ...] | None
) -> None:
    sent: dict[str, Any] = {"files": FILE, way: {"labels": texts}}

    answer = await client.post("/analyze-image", **sent)

    assert await question(redis, answer) == (Question(labels=labels) if labels else None)


SOUND: dict[str, dict[str, Any]] = {
    "one": {"labels": ["cat"]},
    "200": {"labels": [f"thing {number}" for number in range(200)]},
    "256 characters": {"labels": ["x" * 256, "🐕" * 256]},
    "as many bytes as there may be": {"labels": [f"{n:02}" + "x" * 198 for n in range(MAX_LABELS_BYTES // 200)]},
    "quotes, braces, markup": {"labels": ['"', "{}", "{0.__class__}", "<b>", "%s", "\\"]},
    "joined emoji": {"labels": ["👩‍👩‍👧", "🏳️‍🌈"]},
    "case": {"labels": ["cat", "Cat"]},
    "placeholder alone": {"labels": ["cat"], "hypothesis_template": "{}"},
    "template of 256": {"labels": ["cat"], "hypothesis_template": "x" * 254 + "{}"},
}


@pytest.mark.parametrize("case", SOUND)
async def test_sound_question_is_kept_as_it_is(client: httpx.AsyncClient, redis: FakeRedis, case: str) -> None:
    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | SOUND[case])

    asked = await question(redis, answer)
    assert asked is not None
    assert list(asked.labels) == SOUND[case]["labels"]
    assert asked.hypothesis_template == SOUND[case].get("hypothesis_template", "This is a photo of {}.")


CAT = ["cat"]
WRONG_LABELS: dict[str, Any] = {
    "none": [],
    "201": [f"thing {number}" for number in range(201)],
    "257 characters": ["x" * 257],
    "200 of 1,000 characters": [f"{number:03}" + "x" * 997 for number in range(200)],
    "too many bytes": [f"{number:02}" + "🐕" * 60 for number in range(34)],
    "empty": ["cat", ""],
    "blank": ["cat", " \u3000"],
    "equal": ["cat", "dog", "cat "],
    "null character": ["a\0b"],
    "line break": ["a\nb"],
    "C1 control": ["a\x85b"],
    "delete": ["a\x7f"],
    "text": "a cat,a dog",
    "number": [7],
    "null": ["cat", None],
    "list": [["cat"]],
    "object": {"cat": "dog"},
}
WRONG_TEMPLATES: dict[str, Any] = {
    "no placeholder": "A photo.",
    "empty": "",
    "two placeholders": "{} and {}",
    "numbered": "{0}",
    "attribute": "{.__class__}",
    "escaped": "{{}}",
    "escaped and placed": "{{x}} {}",
    "half a brace": "{} {",
    "257 characters": "x" * 255 + "{}",
    "control character": "a\n{}",
    "number": 7,
}
MISTAKES = {
    **{
        f"labels: {name}": ({"labels": labels}, f"labels must be {LABELS_RULE}.")
        for name, labels in WRONG_LABELS.items()
    },
    **{
        f"template: {name}": (
            {"labels": CAT, "hypothesis_template": template},
            f"hypothesis_template must be {TEMPLATE_RULE}.",
        )
        for name, template in WRONG_TEMPLATES.items()
    },
    "template alone": ({"hypothesis_template": "{}"}, "hypothesis_template needs labels: send both, or leave it out."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_is_named_and_nothing_is_queued(
    client: httpx.AsyncClient, redis: FakeRedis, mistake: str
) -> None:
    sent, detail = MISTAKES[mistake]

    answers = [
        await client.post("/analyze-image", json=base64_body(IMAGE) | sent),
        await client.post("/analyze-images", json={"images": [base64_body(IMAGE)]} | sent),
    ]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert answer.json()["detail"] == detail
    assert not await redis.exists(QUEUE_KEY)


@pytest.mark.parametrize(
    ("texts", "detail"),
    [
        ("cat,,dog", f"labels must be {LABELS_RULE}."),
        ("cat,dog,", f"labels must be {LABELS_RULE}."),
        ("cat, cat", f"labels must be {LABELS_RULE}."),
        (",".join("x" * 257), f"labels must be {LABELS_RULE}."),
        ([f"{number}" for number in range(201)], "The form has too many fields named labels: send at most 200."),
        ("x" * 20_000, "A field of the form has more than 16384 bytes: send an image as the part file."),
    ],
)
async def test_mistake_in_a_form_is_named(
    client: httpx.AsyncClient, redis: FakeRedis, texts: str | list[str], detail: str
) -> None:
    answer = await client.post("/analyze-image", files=FILE, data={"labels": texts})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"] == detail
    assert not await redis.exists(QUEUE_KEY)


async def test_lone_surrogate_is_refused_in_json_and_in_a_form(client: httpx.AsyncClient) -> None:
    body = json.dumps(base64_body(IMAGE) | {"labels": ["\ud83d"]}).encode()
    surrogate = b"\xed\xa0\xbd"
    form = b'--b\r\nContent-Disposition: form-data; name="labels"\r\n\r\n' + surrogate + b"\r\n--b--\r\n"

    answers = [
        await client.post("/analyze-image", content=body, headers={"Content-Type": "application/json"}),
        await client.post("/analyze-image", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(400, "invalid_request")] * 2


async def test_form_with_the_largest_image_has_room_for_200_labels(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    image = IMAGE + bytes(10_000_000 - len(IMAGE))
    labels = [f"thing number {number:03} {'x' * 20}" for number in range(200)]
    escaped = json.dumps(base64_body(image) | {"labels": ["ж" * 128, *(f"{n:02}" + "ж" * 98 for n in range(39))]})

    form = await client.post("/analyze-image", files={"file": image}, data={"labels": labels})
    body = await client.post("/analyze-image", content=escaped, headers={"Content-Type": "application/json"})

    assert await question(redis, form) == Question(labels=tuple(labels))
    assert len((await question(redis, body) or Question(labels=())).labels) == 40


FITTING: dict[str, tuple[Task, dict[str, Any], str, str]] = {
    "classification": (
        "image-classification",
        {"labels": CAT},
        "labels_not_supported",
        f"{MODEL.id} has labels of its own: leave them out, or name a zero-shot model.",
    ),
    "zero-shot": (
        ZERO_SHOT,
        {},
        "labels_required",
        f"{MODEL.id} has no labels of its own: send some for it to choose from.",
    ),
}


@pytest.mark.parametrize("case", FITTING)
async def test_question_that_does_not_fit_the_model_is_400_that_says_what_to_do(
    client: httpx.AsyncClient, redis: FakeRedis, case: str
) -> None:
    task, options, code, detail = FITTING[case]
    await announce(redis, task=task)
    batch = {"images": [base64_body(IMAGE), base64_body(make_png(2))]} | options

    answers = [await client.post("/analyze-image", json=base64_body(IMAGE) | options) for _ in range(2)]
    answers.append(await client.post("/analyze-images", json=batch))

    for answer in answers:
        assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (400, code, detail)
        assert answer.headers["content-type"] == "application/problem+json"
    assert not [key async for key in redis.scan_iter("analysis_job:*")]
    assert not await redis.exists(QUEUE_KEY)


@pytest.mark.parametrize("options", [{"labels": CAT}, {}])
async def test_question_for_a_model_that_no_worker_has_announced_is_accepted(
    client: httpx.AsyncClient, redis: FakeRedis, options: dict[str, Any]
) -> None:
    answer = await client.post("/analyze-image", json=base64_body(IMAGE) | options)

    assert (await question(redis, answer) is not None) == bool(options)


async def test_task_is_that_of_the_worker_that_serves_the_name_now(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    other = MODEL.model_copy(update={"revision": "r2"})

    async def submit(seed: int) -> list[int]:
        bodies = (base64_body(make_png(seed)), base64_body(make_png(seed)) | {"labels": CAT})
        return [(await client.post("/analyze-image", json=body)).status_code for body in bodies]

    await announce(redis)
    before = await submit(1)
    await announce(redis, other, task=ZERO_SHOT)
    after = await submit(2)
    await announce(redis)

    assert (before, after, await submit(3)) == ([202, 400], [400, 202], [202, 400])


async def test_question_costs_no_additional_round_trip(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis, task=ZERO_SHOT)
    await client.post("/analyze-image", json=base64_body(IMAGE) | {"labels": CAT})
    sent: list[str] = []
    execute: Callable[..., Awaitable[Any]] = redis.execute_command

    async def note(*arguments: Any, **options: Any) -> Any:
        sent.append(str(arguments[0]))
        return await execute(*arguments, **options)

    redis.execute_command = note  # type: ignore[method-assign]
    await client.post("/analyze-image", json=base64_body(make_png(2)) | {"labels": ["dog"]})

    assert sent == ["EVALSHA"]


async def test_request_without_labels_has_the_fingerprint_of_the_release_before() -> None:
    options = {"model": None, "top_k": 3, "min_confidence": None, "priority": None, "webhook_url": None}
    before = repr((options, False, image_digest(IMAGE), None))

    assert await Submission(Options(top_k=3), image=IMAGE).fingerprint() == image_digest(before.encode())


async def test_zero_shot_model_is_listed_with_its_task(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis, ModelRef(id="acme/clip", revision="r1", preprocessing="1"), task=ZERO_SHOT)
    await announce(redis)
    now_s, _ = await redis.time()
    await redis.zadd(keys.MODELS, {"acme/clip": now_s, MODEL.id: now_s})

    models = (await client.get("/models")).json()["models"]

    assert [(model["id"], model["task"], model["labels_count"]) for model in models] == [
        ("acme/clip", ZERO_SHOT, 0),
        (MODEL.id, "image-classification", 1),
    ]
