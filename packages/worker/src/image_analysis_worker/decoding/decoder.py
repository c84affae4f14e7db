"""Turns an image's bytes into a model's input in separate processes, limited in memory and time.

A hostile image must not break the worker. An image of 0.3 MB that repeats its scans a thousand times took 20 s, one of
10 MB half an hour. An image of 100 bytes, 1 x 4000 px, took 4.7 GB when it was resized. The only way to stop a C call
is to end its process. The code of that process is in `process`.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from typing import IO, Any

import numpy as np

from image_analysis_common.job_errors import CorruptImage, JobError, JobTimeout, UnsupportedDimensions
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.preparation import Preparation
from image_analysis_worker.decoding.process import SIZE, Recipe, write_all

_LINE_BYTES = 10_000
_KEPT_BYTES = 4 * 1024**2
"""How much memory a decoder keeps from one image for the next."""
_LATE_S = 1.0
"""By how much the alarm of a process is late at least if it was frozen: then it comes when the process thaws."""
_ERRORS = {error.code: error for error in (CorruptImage, UnsupportedDimensions)}

# The only variables that these processes inherit. The worker's environment holds the secrets of Redis and of the hub.
_KEPT_VARIABLES = {
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
}
_VARIABLES = {
    # For glibc: one arena, because each reserves 64 MB of addresses, which count as memory. Freed memory is kept for
    # the next photo: returning and requesting it again took 26 ms instead of 14 ms.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024**2),
    # A process that forks must have one thread only.
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Pixels:
    """One input of a model: its shape, (3, H, W), and its values, of the type that `Preparation.dtype` names."""

    shape: tuple[int, ...]
    values: bytearray


class Decoders:
    """Makes decoders for one model; thread-safe. Owns the template, the process that decoders are forked from."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._lock = threading.Lock()
        self._template: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None
        self._preparation: Preparation | None = None

    @property
    def preparation(self) -> Preparation:
        """What trying the image processor has shown; waits for the template.

        Raises:
            StartupError: the image processor does not work.
        """
        with self._lock:
            if self._preparation is None:
                self._template = self._template or self._start()
                said = _read_line(self._template)
                if "error" in said:
                    raise StartupError(f"The image processor does not start: {said['error']}")
                self._preparation = Preparation(**said)
            return self._preparation

    def start(self) -> None:
        """Start the template, without waiting for it."""
        with self._lock:
            self._template = self._template or self._start()

    def open(self) -> "Decoder":
        """Make a decoder; its process is forked with the first image."""
        return Decoder(self)

    def fork(self, *fds: int) -> None:
        """Fork a process that uses these pipes and this memory."""
        with self._lock:
            try:
                if self._template is not None:
                    socket.send_fds(self._template, [b"\0"], fds)
                    return
            except OSError:  # the template's process has ended
                self._end()
            self._template = self._start()
            socket.send_fds(self._template, [b"\0"], fds)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "image_analysis_worker.decoding.process", json.dumps(asdict(self.recipe))],
                stdin=theirs.fileno(),
                stdout=2,  # what a library prints must not mix with the worker's log lines
                # Signals to the worker's group must not reach the decoders: the worker first finishes its batch.
                process_group=0,
                env={name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES} | _VARIABLES,
            )
        self._end = weakref.finalize(self, _end, process, ours)
        return ours


def _read_line(template: socket.socket) -> dict[str, Any]:
    """Read the one line of JSON that a template sends."""
    with template.makefile("rb") as lines, suppress(ValueError, OSError):
        said: dict[str, Any] = json.loads(lines.readline(_LINE_BYTES))
        return said
    return {"error": "its process ends"}


def _end(process: "subprocess.Popen[bytes]", template: socket.socket) -> None:
    template.close()
    process.kill()
    process.wait()


class Decoder:
    """Makes the model's input of one image at a time; for one thread."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._pipes: tuple[IO[bytes], IO[bytes]] | None = None
        # The bytes of an image, then the values of its input. A pipe would take 1 to 2 ms for each megabyte.
        self._memory = _open_memory()

    def decode(self, body: bytes) -> Pixels:
        """Make the model's input from an image.

        Raises:
            CorruptImage: as `decode_image` raises it; or the image needs too much memory, or crashed two processes.
            UnsupportedDimensions: the image processor cannot resize it, or would make it too large.
            JobTimeout: it takes too long.
            StartupError: the decoder cannot be started.
        """
        # Twice, because something other than the image may have ended the first process.
        for is_last in (False, True):
            pipes = self._pipes = self._pipes or self._open()
            sent_s = time.monotonic()
            try:
                return self._request(*pipes, body)
            except (BrokenPipeError, EOFError):
                self._leave_process()
                took_s, timeout_s = time.monotonic() - sent_s, self._decoders.recipe.timeout_s
                was_frozen = took_s > timeout_s + _LATE_S
                if took_s >= timeout_s and (is_last or not was_frozen):
                    raise JobTimeout(
                        f"Decoding the image took longer than {timeout_s:g} s: send a simpler one."
                    ) from None
            except JobError:
                raise  # The process has answered, and takes the next image.
            except BaseException:
                # For example the timeout of an RQ worker: the answer that comes later is not that of the next image.
                self._leave_process()
                raise
            finally:
                if len(body) > _KEPT_BYTES:
                    os.ftruncate(self._memory.fileno(), 0)
        raise CorruptImage("The image crashed the decoder: try a different image.")

    def close(self) -> None:
        """Close the pipes, which ends the process, and free the memory."""
        self._close_pipes()
        self._memory.close()

    def _leave_process(self) -> None:
        """Close the pipes, and take new memory: a process that still decodes writes its input into the old one."""
        memory, self._memory = self._memory, _open_memory()
        memory.close()
        self._close_pipes()

    def _close_pipes(self) -> None:
        pipes, self._pipes = self._pipes or (), None
        for pipe in pipes:
            with suppress(BrokenPipeError):
                pipe.close()

    def _open(self) -> tuple[IO[bytes], IO[bytes]]:
        _ = self._decoders.preparation  # raises if the image processor does not work
        # Twice, because the template may be ending at the first attempt.
        for _ in range(2):
            their_requests, requests = os.pipe()
            responses, their_responses = os.pipe()
            pipes = os.fdopen(requests, "wb"), os.fdopen(responses, "rb")
            try:
                self._decoders.fork(their_requests, their_responses, self._memory.fileno())
            finally:
                os.close(their_requests)
                os.close(their_responses)
            if pipes[1].readline():
                return pipes
            for pipe in pipes:
                pipe.close()
        raise StartupError("The image processor does not start: its process ends.")

    def _request(self, requests: IO[bytes], responses: IO[bytes], body: bytes) -> Pixels:
        write_all(self._memory.fileno(), body)
        requests.write(SIZE.pack(len(body)))
        requests.flush()
        if not (line := responses.readline(_LINE_BYTES)).endswith(b"\n"):
            raise EOFError
        response = json.loads(line)
        if code := response.get("code"):
            raise _ERRORS[code](response["detail"]) from RuntimeError(response["cause"])
        shape = tuple(response["shape"])
        preparation = self._decoders.preparation
        if prod(shape) > 3 * preparation.max_input_pixels:
            raise EOFError  # only a process that an attacker controls sends this
        values = bytearray(np.dtype(preparation.dtype).itemsize * prod(shape))
        if os.preadv(self._memory.fileno(), [values], 0) < len(values):
            raise EOFError
        return Pixels(shape, values)


def _open_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("images"), "w+b")
    return tempfile.TemporaryFile()
