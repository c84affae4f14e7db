"""The command line as its users run it: real processes against the running stack."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from stack import Stack
from support.api_processes import one_api
from support.cutting import withholding_proxy
from support.samples import CHELSEA, encode, make_png
from support.terminals import PROGRAM, run_in_terminal, run_piped
from support.waiting import PATIENCE_S, wait_until

PHOTOS = 150
BAD = 5
CACHED = 10


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos that differ, and a few files that are no images."""
    folder = tmp_path_factory.mktemp("photos")
    photo = Image.open(CHELSEA).convert("RGB")
    for number in range(PHOTOS - BAD):
        left, top = number % 200, number // 200 * 30
        piece = photo.crop((left, top, left + 120, top + 90))
        (folder / f"{number:04}.jpg").write_bytes(encode(piece, "JPEG", quality=85))
    for number in range(BAD):
        (folder / f"bad{number}.jpg").write_bytes(b"no image %d" % number)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_complete(path: Path, photos: Path) -> None:
    """Each photo once, the bad ones failed, all others with a label."""
    found = rows(path)
    assert sorted(row["source"] for row in found) == sorted(map(str, photos.iterdir()))
    assert sum(row["status"] == "FAILED" for row in found) == BAD
    assert all(row["label"] for row in found if row["status"] == "COMPLETED")
    assert {row["error_code"] for row in found if row["status"] == "FAILED"} == {"unsupported_image"}


def queue_depth(client: httpx.Client) -> int:
    return int(client.get("/models").json()["models"][0]["queue_depth"])


@pytest.fixture
def stopped_worker(stack: Stack, client: httpx.Client, photos: Path) -> Iterator[int]:
    """A worker that stands still; a few photos have a result in the cache, the other ones will wait."""
    stack.wait_until_ready()
    known = sorted(map(str, photos.iterdir()))[:CACHED]
    assert run_piped(stack.api_url, "classify", *known).returncode == 0
    worker = stack.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    yield worker
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)


def test_folder_is_classified_with_progress_while_api_and_worker_are_killed(
    stack: Stack, photos: Path, tmp_path: Path, stopped_worker: int
) -> None:
    out = tmp_path / "out.csv"
    with run_in_terminal(stack.api_url, "classify", str(photos), "--csv", str(out)) as terminal:
        wait_until(lambda: out.exists() and rows(out), "the first rows are written")
        os.kill(stack.pid("api"), signal.SIGKILL)
        os.kill(stopped_worker, signal.SIGKILL)
        early = len(rows(out))
        code = terminal.wait()

    assert code == 1
    assert early < PHOTOS
    check_complete(out, photos)
    assert f"/{PHOTOS}" in terminal.shown
    assert "left" in terminal.shown
    assert f"{PHOTOS - BAD} classified, {BAD} failed" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_interrupted_run_says_how_to_go_on_and_does_each_image_once(
    stack: Stack, client: httpx.Client, photos: Path, tmp_path: Path, stopped_worker: int
) -> None:
    out = tmp_path / "out.csv"
    with run_in_terminal(stack.api_url, "classify", str(photos), "--csv", str(out)) as terminal:
        wait_until(lambda: out.exists() and len(rows(out)) >= CACHED, "the first rows are written")
        terminal.interrupt()
        assert terminal.wait() == 130
    early = len(rows(out))
    queued = queue_depth(client)
    os.kill(stopped_worker, signal.SIGCONT)
    [command] = [line for line in terminal.shown.splitlines() if "To go on: " in line]
    words = command.partition("To go on: ")[2].strip().split()
    resumed = run_piped(stack.api_url, *words[1:])

    assert CACHED <= early < PHOTOS
    assert queued == 0
    assert words == ["image-analysis", "classify", "--resume", str(out), str(photos)]
    assert resumed.returncode == 1
    check_complete(out, photos)


def test_interrupt_before_the_answer_to_a_batch_cancels_its_jobs(
    stack: Stack, client: httpx.Client, photos: Path, stopped_worker: int
) -> None:
    port = urlsplit(stack.api_url).port
    assert port
    with (
        withholding_proxy(port, b"POST /analyze-images") as proxy,
        run_in_terminal(proxy.url, "classify", str(photos), "--quiet") as terminal,
    ):
        assert proxy.has_answer.wait(60)
        before = queue_depth(client)
        terminal.interrupt()
        code = terminal.wait()

    assert (code, before > 0, queue_depth(client)) == (130, True, 0)
    assert "What still waited is cancelled." in terminal.shown


def test_used_up_quota_is_waited_for_and_shown(
    stack: Stack, client: httpx.Client, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    limit = {"RATE_LIMIT_MAX_REQUESTS": "50", "RATE_LIMIT_INTERVAL_SECONDS": "4"}
    with (
        one_api(stack.redis_url, **limit) as url,
        run_in_terminal(url, "classify", str(photos), "--csv", str(out)) as terminal,
    ):
        code = terminal.wait()

    assert code == 1
    check_complete(out, photos)
    assert re.search(r"Waiting \d s: rate limited", terminal.shown)
    assert not re.search(r"Waiting[^\r\n]*Waiting", terminal.shown)


def test_pipe_gets_json_lines_and_failures_on_standard_error(
    stack: Stack, client: httpx.Client, tmp_path: Path
) -> None:
    bad = tmp_path / "a\x1b[31m\nb.png"
    bad.write_bytes(b"no")

    run = run_piped(stack.api_url, "classify", str(CHELSEA), str(bad), "missing.png", "-", stdin=make_png(880))

    found = {row["source"]: row for row in map(json.loads, run.stdout.splitlines())}
    assert run.returncode == 1
    assert found.keys() == {str(CHELSEA), str(bad), "missing.png", "-"}
    assert found[str(CHELSEA)]["result"]["label"] == "cat"
    assert found["missing.png"]["error"] == {"code": "unreadable_file", "detail": "No such file or directory."}
    assert b"\x1b" not in run.stdout + run.stderr
    assert b"a\\x1b[31m\\nb.png" in run.stderr


def test_terminal_gets_a_table_without_interpreting_names(stack: Stack, client: httpx.Client, tmp_path: Path) -> None:
    hostile = tmp_path / "[red]x:cat:\x1b]0;title\x07.png"
    hostile.write_bytes(CHELSEA.read_bytes())

    with run_in_terminal(stack.api_url, "classify", str(hostile)) as terminal:
        code = terminal.wait()

    assert code == 0
    assert "[red]x:cat:\\x1b]0;title\\x07.png" in terminal.shown
    assert "\x1b]0;" not in terminal.shown


def test_reader_that_leaves_ends_the_run_quietly(stack: Stack, client: httpx.Client, photos: Path) -> None:
    command = f"{PROGRAM} classify {photos}/0*.jpg --jsonl --quiet | head -n 1"
    environment = {**os.environ, "IMAGE_ANALYSIS_URL": stack.api_url}
    run = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False, timeout=PATIENCE_S)

    assert (run.stdout.count(b"\n"), run.stderr) == (1, b"")


def test_jobs_are_shown_watched_and_cancelled(stack: Stack, client: httpx.Client) -> None:
    job_id = client.post("/analyze-image", files={"file": make_png(881)}).json()["job_id"]

    watched = run_piped(stack.api_url, "watch", job_id)
    shown = run_piped(stack.api_url, "status", job_id)
    cancelled = run_piped(stack.api_url, "cancel", job_id)
    unknown = run_piped(stack.api_url, "status", str(uuid4()))
    models = run_piped(stack.api_url, "models")

    assert [json.loads(line)["status"] for line in watched.stdout.splitlines()][-1] == "COMPLETED"
    assert json.loads(shown.stdout)["status"] == "COMPLETED"
    assert (cancelled.returncode, cancelled.stderr) == (0, b"The job had ended. It is forgotten.\n")
    assert (unknown.returncode, unknown.stderr.count(b"\n")) == (1, 1)
    assert json.loads(models.stdout)["id"] == "vit-tiny-cifar10"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["classify", str(CHELSEA), "--url", "http://127.0.0.1:9"], 3),
        (["classify", str(CHELSEA), "--url", "ftp://example.com"], 2),
        (["classify", str(CHELSEA), "--url", "http://[x"], 2),
        (["classify", "http://[x"], 1),
        (["classify", "HTTP://127.0.0.1:1/a.png"], 1),
        (["models", "--url", "ftp://example.com"], 2),
        (["classify", str(CHELSEA), "--api-key", "gehe\u00efm"], 2),
        (["classify", str(CHELSEA), "--model", "none"], 2),
        (["classify", str(CHELSEA), "--csv", str(CHELSEA)], 2),
        (["classify", str(CHELSEA), "--json", "--jsonl"], 2),
        (["status", "no-id"], 2),
        (["--version"], 0),
        (["classify", "--help"], 0),
    ],
)
def test_errors_are_one_line_and_exit_codes_hold(stack: Stack, arguments: list[str], code: int) -> None:
    run = run_piped(stack.api_url, *arguments)

    assert (run.returncode, run.stderr.count(b"\n")) == (code, 1 if code else 0)
    assert b"Traceback" not in run.stderr
