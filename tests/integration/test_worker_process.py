"""The worker as a process: its announcement, its stop, and its refusals to start."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree

import pytest
from redis import Redis

from image_analysis_common import keys
from image_analysis_common.models import ModelAnnouncement
from image_analysis_common.startup import EXIT_CANNOT_START
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from support.replies import raw
from support.waiting import PATIENCE_S, wait_until

CLOSED = "http://127.0.0.1:1"
"""A model hub that cannot be reached."""

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILE = {"type": "file", "path": "model.safetensors", "size": 2**20, "oid": "0" * 40}
"""A file of a model, as the hub lists it."""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(redis: Redis, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def start(**variables: str) -> subprocess.Popen[str]:
        environment = os.environ | {"REDIS_URL": redis_url, "HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path / "hub")}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "image_analysis_worker"],
                env=environment | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_model_from_the_hubs_cache_is_announced_until_the_worker_stops(
    redis: Redis, start: Start, tmp_path: Path
) -> None:
    cached = tmp_path / "hub" / "hub" / "models--acme--cats"
    copytree(BUNDLED_FOLDER, cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION)

    worker = start(MODEL_ID="acme/cats")
    announced = wait_until(lambda: redis.get(keys.announcement("acme/cats")), "the model is announced")
    workers = redis.zrange(keys.workers("acme/cats"), 0, -1)
    listening = wait_until(lambda: redis.smembers("rq:workers:analysis-acme--cats"), "the worker listens")
    worker.send_signal(signal.SIGTERM)
    output, errors = worker.communicate(timeout=PATIENCE_S)

    model = ModelAnnouncement.model_validate_json(raw(announced))
    assert (model.model.id, model.model.revision, model.accuracy) == ("acme/cats", REVISION, 0.9001)
    assert "cat" in model.labels
    assert listening == {b"rq:worker:" + raw(workers[0])}
    assert (worker.returncode, errors) == (0, "")
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["worker_started", "worker_stopped"]
    assert redis.zcard(keys.workers("acme/cats")) == 0


@pytest.fixture
def endless_hub() -> Iterator[tuple[str, threading.Event]]:
    """A model hub whose models have one file, which never ends; and whether it is being downloaded."""
    is_downloading, is_over = threading.Event(), threading.Event()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send_head(FILE["size"])

        def do_GET(self) -> None:
            if self.path.startswith("/api/"):
                body = json.dumps([FILE] if "/tree/" in self.path else {"id": "acme/cats", "sha": REVISION}).encode()
                self._send_head(len(body))
                self.wfile.write(body)
                return
            self._send_head(FILE["size"])
            with suppress(OSError):
                while not is_over.wait(0.05):
                    self.wfile.write(b"0")
                    is_downloading.set()

        def _send_head(self, size: object) -> None:
            self.send_response(200)
            for name, value in {"Content-Length": size, "ETag": '"0"', "X-Repo-Commit": REVISION}.items():
                self.send_header(name, str(value))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", is_downloading
        is_over.set()
        server.shutdown()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_worker_that_downloads_its_model_ends_at_once(
    start: Start, endless_hub: tuple[str, threading.Event], number: signal.Signals
) -> None:
    url, is_downloading = endless_hub
    worker = start(MODEL_ID="acme/cats", HF_ENDPOINT=url, NO_PROXY="127.0.0.1")
    assert is_downloading.wait(PATIENCE_S)

    worker.send_signal(number)
    worker.communicate(timeout=PATIENCE_S)

    assert worker.returncode == 0


class OldRedis(socketserver.StreamRequestHandler):
    """Answers HELLO as Redis 6.0 does."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.upper().rstrip() in (b"HELLO", b"SETINFO"):
                is_hello = line.upper().startswith(b"HELLO")
                hello = b"*2\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n"
                self.wfile.write(hello if is_hello else b"-ERR unknown command\r\n")


@pytest.fixture
def old_redis_url() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldRedis) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def refusal(worker: "subprocess.Popen[str]") -> str:
    _, errors = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == EXIT_CANNOT_START
    [line] = errors.splitlines()
    return line.removeprefix("image-analysis-worker: ")


def test_model_that_cannot_be_loaded_is_reported_in_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()

    of_an_unreachable_hub, of_an_empty_folder = start(MODEL_ID="acme/dogs"), start(MODEL_ID=str(tmp_path / "cats"))

    assert refusal(of_an_unreachable_hub) == (
        "MODEL_ID=acme/dogs: the model hub cannot be reached, and the model is not in the local cache. "
        "Set MODEL_ID to a folder, or leave it unset for the bundled model."
    )
    assert refusal(of_an_empty_folder).startswith("cats is not an image-classification checkpoint: ")


def relabel(folder: Path, first_label: str) -> Path:
    """Change a model's labels."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"]["0"] = first_label
    path.write_text(json.dumps(config))
    return folder


def test_worker_with_other_labels_refuses_the_name_of_live_workers(redis: Redis, start: Start, tmp_path: Path) -> None:
    first = copytree(BUNDLED_FOLDER, tmp_path / "a" / "pets")
    other = relabel(copytree(BUNDLED_FOLDER, tmp_path / "b" / "pets"), "zebra")

    start(MODEL_ID=str(first))
    announced = wait_until(lambda: redis.get(keys.announcement("pets")), "the model is announced")
    refused = start(MODEL_ID=str(other))
    start(MODEL_ID=str(other), MODEL_NAME="acme/zebras 2")

    assert refusal(refused) == (
        "Live workers serve a model called pets with other labels: "
        "give this one another name with MODEL_NAME, or stop them first."
    )
    wait_until(lambda: redis.exists("rq:workers:analysis-acme~2fzebras~202"), "the renamed one listens")
    assert redis.exists(keys.announcement("acme/zebras 2"))
    assert redis.scard("rq:workers:analysis-pets") == 1
    assert redis.get(keys.announcement("pets")) == announced
    assert redis.zcard(keys.workers("pets")) == 1


def test_worker_with_the_same_labels_and_other_weights_joins_under_its_own_revision(
    redis: Redis, start: Start, tmp_path: Path
) -> None:
    first, second = (Path(copytree(BUNDLED_FOLDER, tmp_path / name / "pets")) for name in ("a", "b"))
    weights = second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")

    for folder in (first, second):
        start(MODEL_ID=str(folder))

    fields: set[str] = set()

    def are_two() -> bool:
        if announced := redis.get(keys.announcement("pets")):
            fields.add(ModelAnnouncement.model_validate_json(raw(announced)).model.cache_field)
        return len(fields) == 2

    wait_until(are_two, "each has announced its own revision")
    assert redis.zcard(keys.workers("pets")) == 2


def test_old_redis_is_reported_in_one_line(start: Start, old_redis_url: str) -> None:
    assert refusal(start(REDIS_URL=old_redis_url)) == "Redis 6.0.16 is too old: the service needs Redis 6.2 or newer."


def test_health_check_passes_while_a_worker_sends_heartbeats_and_else_says_why(
    redis: Redis, redis_url: str, start: Start, tmp_path: Path
) -> None:
    pets = str(copytree(BUNDLED_FOLDER, tmp_path / "pets"))

    def check(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "image_analysis_worker.healthcheck"]
        environment = os.environ | {"REDIS_URL": url, "MODEL_ID": pets}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    before = check(redis_url)
    worker = start(MODEL_ID=pets)
    wait_until(lambda: redis.exists(keys.workers("pets")), "the worker beats")
    meanwhile = check(redis_url)
    worker.terminate()
    worker.wait(timeout=PATIENCE_S)
    after, without_redis = check(redis_url), check("redis://127.0.0.1:1")

    missing = "No worker of pets on this host has reported in the last 10 s.\n"
    assert (meanwhile.returncode, meanwhile.stdout, meanwhile.stderr) == (0, "", "")
    assert [(run.returncode, run.stderr) for run in (before, after)] == [(1, missing)] * 2
    assert without_redis.returncode == 1
    assert without_redis.stderr.startswith("Redis cannot be reached: ")
    assert "Traceback" not in without_redis.stderr
