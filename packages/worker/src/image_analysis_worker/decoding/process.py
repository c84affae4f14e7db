"""Decoding in a process of its own, bounded in memory and time: what a hostile image breaks there is not the worker.

Both ends of the pipe: `Decoder` in the worker, `main` in the process that it starts. An image of 0.3 MB that repeats
its scans a thousand times took 20 s, one of 10 MB half an hour; a C call can be ended only with its process.
"""

import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from PIL import AvifImagePlugin, Image

from image_analysis_common.errors import CorruptImage, JobTimeout
from image_analysis_worker.decoding.decode import decode_image

MEMORY_BASE_BYTES = 192 * 1024**2
MEMORY_BYTES_PER_PIXEL = 24
"""The hungriest decoder, WebP with alpha, took 20 for each pixel of the limit."""

KEPT_BYTES = 16 * 1024**2
"""The shared memory of a larger picture is given back at once."""

# For glibc: one arena, for the 64 MB of addresses that each reserves would count as memory; and what a photo took is
# kept for the next one, for giving it back and asking again made 26 ms out of 14 ms.
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024**2),
}

_SIZE = struct.Struct(">Q")
_ANSWER = struct.Struct(">?II")


class Decoder:
    """Decodes one image at a time as `decode_image` does; for one thread. Its process starts with the first image."""

    def __init__(self, max_pixels: int, *, input_px: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._arguments = [str(max_pixels), str(input_px), str(timeout_s)]
        self._process: subprocess.Popen[bytes] | None = None
        # Pixels through a pipe took 2 ms for each megabyte, as long as decoding a photo.
        self._pixels = _open_memory()

    def decode(self, body: bytes) -> Image.Image:
        """Decode an image to upright RGB.

        Raises:
            CorruptImage: as `decode_image`, or the image needs too much memory, or two decoders ended over it.
            JobTimeout: it takes longer than `timeout_s`.
        """
        # Whatever else ended the process, the first time it may not have been the image.
        for _ in range(2):
            try:
                return self._ask(body)
            except (BrokenPipeError, EOFError):
                if self._end() == -signal.SIGALRM:
                    limit_s = f"{self._timeout_s:g} s"
                    raise JobTimeout(f"Decoding the image took longer than {limit_s}: send a simpler one.") from None
        raise CorruptImage("The image crashed the decoder: try a different image.")

    def close(self) -> None:
        """End the process and give its memory back."""
        self._end()
        self._pixels.close()

    def _end(self) -> int:
        """End the process, also in the midst of an image; return its exit code, 0 if there is none."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        with process, suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.close()
            # It has ended already, or waits for the pipe that has just been closed; only a decoder at work hangs.
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=1)
            process.kill()
        return process.wait()

    def _ask(self, body: bytes) -> Image.Image:
        process = self._process = self._process or self._start()
        questions, answers = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        questions.write(_SIZE.pack(len(body)) + body)
        questions.flush()
        is_image, width, height = _ANSWER.unpack(_read(answers, _ANSWER.size))
        if is_image:
            return self._take(width, height)
        raise CorruptImage(_read(answers, width).decode())

    def _take(self, width: int, height: int) -> Image.Image:
        size = width * height * 3
        with mmap.mmap(self._pixels.fileno(), size, access=mmap.ACCESS_READ) as pixels:
            image = Image.frombytes("RGB", (width, height), pixels)  # type: ignore[arg-type]
        if size > KEPT_BYTES:
            os.ftruncate(self._pixels.fileno(), 0)
        return image

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-m",
                "image_analysis_worker.decoding.process",
                *self._arguments,
                str(self._pixels.fileno()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._pixels.fileno()],
            # A signal to the worker's group is the worker's business: it ends the decoder when it is done.
            process_group=0,
            env=os.environ | MALLOC,
        )


def main() -> None:
    """Decode what comes in until the pipe is closed."""
    max_pixels, input_px, timeout_s, pixels = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    memory_bytes = MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * max_pixels
    with suppress(ValueError, OSError):  # macOS knows no such limit, and the caller's own may be lower
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # Linux: where the machine or the container runs out of memory, this process goes first
        Path("/proc/self/oom_score_adj").write_text("1000")
    # One damaged image can be worth 60,000 warnings, each remembered for ever.
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # Ours is the pixel limit that counts.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not land among the answers.
    with os.fdopen(os.dup(1), "wb") as answers, suppress(EOFError, BrokenPipeError):
        os.dup2(2, 1)
        while True:
            (size,) = _SIZE.unpack(_read(sys.stdin.buffer, _SIZE.size))
            body = bytes(_read(sys.stdin.buffer, size))
            # Its default action ends the process, in C code as well.
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            try:
                image = decode_image(body, max_pixels, input_px=input_px)
                head, rest = _ANSWER.pack(True, *image.size), b""
                _write(pixels, image.tobytes())
                del image
            except CorruptImage as error:
                rest = error.detail.encode()
                head = _ANSWER.pack(False, len(rest), 0)
            except MemoryError:
                rest = b"Decoding the image needs too much memory: send a smaller one."
                head = _ANSWER.pack(False, len(rest), 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            answers.write(head + rest)
            answers.flush()


def _open_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pixels"), "w+b")
    return tempfile.TemporaryFile()


def _write(file: int, body: bytes) -> None:
    written = 0
    while written < len(body):
        written += os.pwrite(file, memoryview(body)[written:], written)


def _read(pipe: BinaryIO, size: int) -> bytearray:
    """Read exactly so much; raises EOFError where the pipe ends before."""
    body = bytearray(size)
    view, filled = memoryview(body), 0
    while filled < size:
        if not (count := pipe.readinto(view[filled:])):  # type: ignore[attr-defined]
            raise EOFError
        filled += count
    return body


if __name__ == "__main__":
    main()
