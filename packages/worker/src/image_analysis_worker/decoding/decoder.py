"""Turns an image's bytes into a model's input in separate processes, limited in memory and time.

A hostile image must not break the worker. One of 0.3 MB that repeats its scans a thousand times took 20 s, one of
10 MB half an hour; one of 100 bytes, 1 x 4000 px, took 4.7 GB when it was resized. The only way to stop a C call is to
end its process. `process` is the other end.
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
from typing import IO

from image_analysis_common.job_errors import CorruptImage, JobTimeout, UnsupportedDimensions
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.process import SIZE, Recipe

_LINE_BYTES = 10_000
_ERRORS = {error.code: error for error in (CorruptImage, UnsupportedDimensions)}

# All that these processes inherit of the worker's environment, which holds the secrets of Redis and of the model hub.
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
    # For glibc: one arena, because each reserves 64 MB of addresses, which count as memory. And memory is kept for the
    # next photo: returning it and asking again made 26 ms out of 14 ms.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024**2),
    # A process that forks must have only one thread.
    "OPENBLAS_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


@dataclass(frozen=True)
class Pixels:
    """One input of a model: its shape, (3, H, W), and its float32 values."""

    shape: tuple[int, ...]
    values: bytearray


class Decoders:
    """Makes decoders for one model; thread-safe. Owns the template, the process that decoders are forked from."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._lock = threading.Lock()
        self._template: socket.socket | None = None
        self._end: Callable[[], object] = lambda: None

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
            except OSError:  # the template has ended
                self._end()
            self._template = self._start()
            socket.send_fds(self._template, [b"\0"], fds)

    def explain(self) -> str:
        """Return why the template could not load the image processor; empty if it is not known."""
        with self._lock, suppress(OSError):
            if self._template is not None:
                return self._template.recv(1000, socket.MSG_DONTWAIT).decode(errors="replace")
        return ""

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "image_analysis_worker.decoding.process", json.dumps(asdict(self.recipe))],
                stdin=theirs.fileno(),
                stdout=2,  # whatever a library prints goes to the log
                # Signals to the worker's group must not reach the decoders: the worker first finishes its work.
                process_group=0,
                env={name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES} | _VARIABLES,
            )
        self._end = weakref.finalize(self, _end, process, ours)
        return ours


def _end(process: "subprocess.Popen[bytes]", template: socket.socket) -> None:
    template.close()
    process.kill()
    process.wait()


class Decoder:
    """Makes the model's input of one image at a time; for one thread."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._pipes: tuple[IO[bytes], IO[bytes]] | None = None
        # Pixels through a pipe took 2 ms for each megabyte.
        self._pixels = _open_memory()

    def decode(self, body: bytes) -> Pixels:
        """Make the model's input of an image.

        Raises:
            CorruptImage: as `decode_image`, or the image needs too much memory, or two decoders ended over it.
            UnsupportedDimensions: the image processor cannot resize it, or would make it too large.
            JobTimeout: it takes too long.
            StartupError: the decoder cannot be started.
        """
        # The first time, something other than the image may have ended the process.
        for _ in range(2):
            pipes = self._pipes = self._pipes or self._open()
            asked_s = time.monotonic()
            try:
                return self._ask(*pipes, body)
            except (BrokenPipeError, EOFError):
                self._let_go()
                timeout_s = self._decoders.recipe.timeout_s
                if time.monotonic() - asked_s >= timeout_s:
                    raise JobTimeout(
                        f"Decoding the image took longer than {timeout_s:g} s: send a simpler one."
                    ) from None
        raise CorruptImage("The image crashed the decoder: try a different image.")

    def close(self) -> None:
        """Close the pipes, which ends the process, and free the memory."""
        self._let_go()
        self._pixels.close()

    def _let_go(self) -> None:
        for pipe in self._pipes or ():
            with suppress(BrokenPipeError):
                pipe.close()
        self._pipes = None

    def _open(self) -> tuple[IO[bytes], IO[bytes]]:
        # On the first try the template may just be ending.
        for _ in range(2):
            their_questions, questions = os.pipe()
            answers, their_answers = os.pipe()
            pipes = os.fdopen(questions, "wb"), os.fdopen(answers, "rb")
            try:
                self._decoders.fork(their_questions, their_answers, self._pixels.fileno())
            finally:
                os.close(their_questions)
                os.close(their_answers)
            if pipes[1].readline():
                return pipes
            for pipe in pipes:
                pipe.close()
        raise StartupError(f"The image processor does not start: {self._decoders.explain() or 'its process ends'}")

    def _ask(self, questions: IO[bytes], answers: IO[bytes], body: bytes) -> Pixels:
        questions.write(SIZE.pack(len(body)) + body)
        questions.flush()
        if not (line := answers.readline(_LINE_BYTES)).endswith(b"\n"):
            raise EOFError
        answer = json.loads(line)
        if code := answer.get("code"):
            raise _ERRORS[code](answer["detail"]) from RuntimeError(answer["cause"])
        shape = tuple(answer["shape"])
        if prod(shape) > 3 * self._decoders.recipe.max_input_pixels:
            raise EOFError  # only a process that was taken over says so
        values = bytearray(4 * prod(shape))
        if os.preadv(self._pixels.fileno(), [values], 0) < len(values):
            raise EOFError
        return Pixels(shape, values)


def _open_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pixels"), "w+b")
    return tempfile.TemporaryFile()
