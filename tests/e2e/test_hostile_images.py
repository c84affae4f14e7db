"""Thousands of damaged images, and images that are expensive to decode: no process ends, and none grows."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from image_analysis_common.images import FORMATS
from image_analysis_worker.decoding.process import MEMORY_BASE_BYTES, MEMORY_BYTES_PER_PIXEL
from stack import Stack
from support.bombs import BOMBS, LIMIT_PX
from support.memory import forget_peak, peak_bytes, resident_bytes
from support.samples import CHELSEA, base64_body, encode, make_image, make_png

MUTANTS = 2000
FIRST = 500
"""After this number, every reader and decoder has been loaded."""
GROWTH_BYTES = 24 * 2**20
CALLERS = 8
ANSWERS = {200, 202, 400, 413}
ENDS = {("COMPLETED", None), ("FAILED", "corrupt_image")}
API_PEAK_BYTES = 100 * 2**20
"""For a body of 14 MB and the copies of it."""
WORKER_PEAK_BYTES = 64 * 2**20
"""The worker's memory: the bytes of the images, and the model's inputs."""

Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as threads:
        yield threads


def originals() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "A cat"
    images = [encode(make_image(seed, size_px=(90, 70)), form) for seed, form in enumerate(FORMATS)]
    images += [encode(make_image(7), "JPEG", exif=exif), encode(make_image(8, mode="CMYK"), "JPEG", progressive=True)]
    images += [
        make_png(9, mode="P"),
        make_png(10, mode="RGBA"),
        make_png(11, mode="I;16"),
        CHELSEA.read_bytes()[:30_000],
    ]
    frames = [make_image(seed, mode="P") for seed in (12, 13)]
    return [*images, encode(frames[0], "GIF", save_all=True, append_images=frames[1:])]


def mutants(count: int, chance: random.Random) -> Iterator[bytes]:
    """Damage images by cutting, flipping and joining bytes; most keep a valid header, so the rest is decoded."""
    images = originals()
    for number in range(count):
        image = bytearray(images[number % len(images)])
        match number // len(images) % 4:
            case 0:
                del image[chance.randrange(len(image) // 8, len(image)) :]
            case 1:
                for _ in range(chance.choice((1, 4, 32))):
                    image[chance.randrange(len(image))] ^= 1 << chance.randrange(8)
            case 2:
                other = chance.choice(images)
                image[chance.randrange(len(image)) :] = other[chance.randrange(len(other)) :]
            case _:
                at = chance.randrange(len(image))
                image[at : at + 8] = chance.randbytes(chance.choice((0, 4, 8, 300)))
        yield bytes(image)


def test_damaged_images_end_no_process_and_leave_nothing_behind(
    stack: Stack, client: httpx.Client, threads: ThreadPoolExecutor, ask: Ask
) -> None:
    seed = random.randrange(10**6)
    images = list(mutants(MUTANTS, random.Random(seed)))
    pids = {program: stack.pid(program) for program in ("api", "worker")}

    def submit(image: bytes) -> tuple[int, str | None]:
        answer = client.post("/analyze-image", json=base64_body(image))
        return answer.status_code, answer.json().get("job_id")

    def run(some: list[bytes]) -> tuple[Counter[int], Counter[tuple[str, str | None]], dict[str, int]]:
        answers = list(threads.map(submit, some))
        ends = [ask(job_id) for _, job_id in answers if job_id]
        return (
            Counter(status for status, _ in answers),
            Counter((end["status"], end["error"] and end["error"]["code"]) for end in ends),
            {program: resident_bytes(pid) for program, pid in pids.items()},
        )

    first_answers, first_ends, before = run(images[:FIRST])
    answers, ends, after = run(images[FIRST:])
    answers.update(first_answers)
    ends.update(first_ends)

    print(f"{dict(answers)}, {dict(ends)}, memory before {before}, after {after}")
    assert answers.keys() <= ANSWERS, seed
    assert ends.keys() <= ENDS, seed
    assert min(answers[202], answers[400], *ends.values()) > MUTANTS // 20, "nothing was tried"
    assert {program: stack.pid(program) for program in pids} == pids, seed
    growth_bytes = {program: after[program] - before[program] for program in pids}
    assert max(growth_bytes.values()) < GROWTH_BYTES, growth_bytes


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_or_ends_within_bounds(stack: Stack, client: httpx.Client, ask: Ask, name: str) -> None:
    bomb = BOMBS[name]
    api, worker = stack.pid("api"), stack.pid("worker")
    ask(client.post("/analyze-image", json=base64_body(make_png(700))).json()["job_id"])
    for pid in (api, worker):
        forget_peak(pid)
    before = {pid: resident_bytes(pid) for pid in (api, worker)}

    answer = client.post("/analyze-image", json=base64_body(bomb.make()))
    end = ask(answer.json()["job_id"]) if bomb.refusal is None else None

    assert answer.json().get("code") == bomb.refusal
    assert end is None or (end["status"], end["error"] and end["error"]["code"]) == bomb.end
    assert (stack.pid("api"), stack.pid("worker")) == (api, worker)
    assert peak_bytes(api) - before[api] < API_PEAK_BYTES
    decoding_bytes = MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * LIMIT_PX
    assert peak_bytes(worker) - before[worker] < decoding_bytes + WORKER_PEAK_BYTES


@pytest.mark.parametrize("path", ["/analyze-image", "/analyze-images"])
@pytest.mark.parametrize("values", [b"1,", b"{},", b'{"image_url":""},'])
def test_body_of_a_million_values_costs_no_more_than_its_bytes(
    stack: Stack, client: httpx.Client, path: str, values: bytes
) -> None:
    api = stack.pid("api")
    body = b'{"images":[' + values * (13_000_000 // len(values)) + b"0]}"
    client.post(path, json=base64_body(make_png(701)))
    forget_peak(api)
    before = resident_bytes(api)

    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert stack.pid("api") == api
    assert peak_bytes(api) - before < API_PEAK_BYTES
