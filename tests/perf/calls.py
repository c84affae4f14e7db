"""The rows of calls: how many calls one API process answers a second, and the latencies at half that rate.

For comparison, an empty FastAPI handler reads the same body, on the same uvicorn with the same loop and parser.
No worker runs: the queue accepts everything, and is emptied before each load.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis import Redis

from image_analysis_common import keys
from image_analysis_common.images import image_digest
from image_analysis_common.models import AnalysisResult, CachedResult, JobStatus, ModelAnnouncement
from image_analysis_common.records import JobRecord
from image_analysis_common.settings import BUNDLED_MODEL
from perf.load import Load, LoadError, closed_loop, open_loop
from perf.photos import SMALL_PX, Photos, to_body
from perf.programs import SCRIPTS, Program, free_port
from perf.rows import EMPTY_HANDLER, CallRow, Say, Turns

CONNECTIONS = 200
WARM_UP_S = 0.5
PEAK_S = 2.0
HALF_S = 2.5
KNOWN_PHOTOS = 64
NO_LIMIT = "1000000000"

MODEL = {"id": BUNDLED_MODEL, "revision": "bench", "preprocessing": "1"}
BELIEF = {"label": "cat", "confidence": 0.2}
RESULT = AnalysisResult.model_validate({**BELIEF, "predictions": [BELIEF] * 5, "model": MODEL})
ANNOUNCEMENT = ModelAnnouncement.model_validate(
    {
        "model": MODEL,
        "labels": ["cat"],
        "accuracy": None,
        "device": "none",
        "dtype": "none",
        "max_batch_size": 1,
        "inference_ms": 0,
    }
)


@dataclass(frozen=True)
class Server:
    """A process and the port that it listens on."""

    program: Program
    port: int


@dataclass(frozen=True)
class Call:
    """A request, its server, and the expected answer."""

    row: CallRow
    server: Server
    requests: Iterator[bytes]
    status: int


def measure_calls(redis_url: str, folder: Path, turns: Turns, say: Say) -> list[CallRow]:
    """Measure one process of the API and the empty handler.

    Raises:
        ProgramError, LoadError: a server does not work.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(Redis.from_url(redis_url))
        api, empty_server = start_servers(stack, redis_url, folder)
        photos = Photos("224 px", SMALL_PX)
        known = photos.take(KNOWN_PHOTOS)
        job_ids = [str(uuid4()) for _ in known]
        reads = [b"GET /analysis-status/%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % job.encode() for job in job_ids]
        submit, hit, status, empty = (
            CallRow("submit", "POST /analyze-image, each image new: 202"),
            CallRow("cache hit", "POST /analyze-image, each image known: 200"),
            CallRow("status", "GET /analysis-status of a COMPLETED job: 200"),
            CallRow(EMPTY_HANDLER, "a FastAPI handler that reads the body of a submission: 200"),
        )
        calls = [
            Call(empty, empty_server, map(post, photos.bodies()), 200),
            Call(submit, api, map(post, photos.bodies()), 202),
            Call(hit, api, cycle([post(to_body(photo)) for photo in known]), 200),
            Call(status, api, cycle(reads), 200),
        ]
        for turn in turns:
            say(f"calls, round {turn + 1} of {turns.wanted}")
            for call in calls:
                prepare(redis, known, job_ids)
                if turn == 0:
                    closed_loop(call.server.port, call.requests, connections=CONNECTIONS, duration_s=WARM_UP_S)
                measure(call, lambda: prepare(redis, known, job_ids))
        return [submit, hit, status, empty]


def measure(call: Call, reset: Callable[[], None]) -> None:
    """Find the peak, then measure latencies at half of it."""
    port, program = call.server.port, call.server.program
    cpu_s = program.cpu_s()
    peak = closed_loop(port, call.requests, connections=CONNECTIONS, duration_s=PEAK_S)
    cpu_s = program.cpu_s() - cpu_s
    check(call, peak)
    reset()
    rate_per_s = peak.calls_per_s / 2
    half = open_loop(port, call.requests, connections=CONNECTIONS, duration_s=HALF_S, rate_per_s=rate_per_s)
    check(call, half)
    call.row.calls_per_s.append(peak.calls_per_s)
    call.row.cpu_ms.append(cpu_s / len(peak.ends_s) * 1000)
    call.row.client_share.append(peak.client_share)
    call.row.p50_ms.append(half.percentile_ms(50))
    call.row.p99_ms.append(half.percentile_ms(99))


def check(call: Call, load: Load) -> None:
    """Raise LoadError if any answer is not the expected one."""
    if set(load.statuses) != {call.status}:
        raise LoadError(f"{call.row.call}: answered {dict(load.statuses)} instead of {call.status}")


def start_servers(stack: ExitStack, redis_url: str, folder: Path) -> tuple[Server, Server]:
    """Start the API and the empty handler, one process each."""
    api_port, empty_port = free_port(), free_port()
    variables = {
        "REDIS_URL": redis_url,
        "MODEL_ID": BUNDLED_MODEL,
        "API_HOST": "127.0.0.1",
        "API_PORT": str(api_port),
        "RATE_LIMIT_MAX_REQUESTS": NO_LIMIT,
        "MAX_QUEUE_DEPTH": NO_LIMIT,
        "MAX_QUEUE_BYTES": NO_LIMIT,
    }
    uvicorn = ["-m", "uvicorn", "--app-dir", str(SCRIPTS), "--port", str(empty_port), "--no-access-log"]
    api = stack.enter_context(Program("api", [sys.executable, "-m", "image_analysis_api"], folder, variables))
    empty = stack.enter_context(Program("empty", [sys.executable, *uvicorn, "empty_handler:app"], folder))
    api.wait_for_port(api_port)
    empty.wait_for_port(empty_port)
    return Server(api, api_port), Server(empty, empty_port)


def prepare(redis: Any, known: list[bytes], job_ids: list[str]) -> None:
    """Empty Redis, then add a model, the results of the known photos, and a completed job for each."""
    redis.flushall()
    record = JobRecord(status=JobStatus.COMPLETED, image_hash="0" * 64, result=RESULT, processing_time_ms=10.0)
    cached = CachedResult(result=RESULT, processing_time_ms=10.0)
    redis.set(keys.announcement(BUNDLED_MODEL), ANNOUNCEMENT.model_dump_json(), ex=keys.ANNOUNCEMENT_TTL_S)
    for photo, job_id in zip(known, job_ids, strict=True):
        key = keys.result(image_digest(photo))
        redis.hset(key, RESULT.model.cache_field, cached.model_dump_json())
        redis.expire(key, keys.ENDED_JOB_TTL_S)
        redis.hset(keys.job(job_id), mapping=record.to_hash())
        redis.expire(keys.job(job_id), keys.ENDED_JOB_TTL_S)


def post(body: bytes) -> bytes:
    """Return a submission as the bytes of an HTTP request."""
    head = b"POST /analyze-image HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)
