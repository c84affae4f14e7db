"""The process that decodes images for `decoder`: the template loads a model's image processor once and forks decoders.

It never loads torch. A fork takes 6 ms and 6 MB; starting a new Python for each decoder would take 0.8 s and 50 MB.
"""

import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias

from PIL import AvifImagePlugin, Image

from image_analysis_common.job_errors import CorruptImage, JobError, UnsupportedDimensions
from image_analysis_worker.decoding.decode import decode_image
from image_analysis_worker.decoding.sandbox import enter_sandbox

MEMORY_BASE_BYTES = 160 * 1024**2
MEMORY_BYTES_PER_PIXEL = 24
"""The memory that a decoder may use on top of its template's. The worst format, WebP with alpha, took 20 bytes for each
pixel of the limit; the resize of an image in full size took 15."""

MAX_INPUT_GROWTH = 16
"""The largest input, as a multiple of the pixels of the model's usual input. If a processor neither crops nor resizes
to a fixed size, the image decides how large the input is, and so how much memory the model takes."""

SIZE = struct.Struct(">Q")

Processor: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Recipe:
    """How to turn images into a model's inputs, and the limits on it."""

    module: str
    class_name: str
    """The class of the image processor, and the module that holds it."""
    parameters: dict[str, Any]
    """The image processor's configuration, as transformers writes it to a file."""
    input_px: int
    """The model's input size, for `decode_image`."""
    max_input_pixels: int
    max_image_pixels: int
    timeout_s: float

    def make_processor(self) -> Processor:
        processor: Processor = getattr(importlib.import_module(self.module), self.class_name).from_dict(self.parameters)
        return processor


def main() -> None:
    """Fork a decoder for each request, until the worker ends; if the processor cannot be loaded, send the reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: nobody waits for the forks
    recipe = Recipe(**json.loads(sys.argv[1]))
    _limit_resizes(max(recipe.max_image_pixels, recipe.max_input_pixels))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(
        OSError
    ):  # Linux: if the machine or the container runs out of memory, these processes are killed first
        Path("/proc/self/oom_score_adj").write_text("1000")
    # One damaged image can raise 60,000 warnings, and Python keeps each.
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # `decode_image` checks our own limit.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()
    with socket.socket(fileno=0) as worker, suppress(OSError):
        try:
            processor = _load(recipe)
        except Exception as error:  # noqa: BLE001
            # The last line of defense: a checkpoint can name any processor, with any parameters.
            worker.send(f"{type(error).__name__}: {error}".partition("\n")[0].encode()[:1000])
            return
        enter_sandbox()
        gc.freeze()
        while fds := socket.recv_fds(worker, 1, 3)[1]:
            if os.fork() == 0:
                worker.close()
                _run_and_exit(lambda fds=fds: _decode(recipe, processor, *fds))  # type: ignore[misc]
            for fd in fds:
                os.close(fd)


def _limit_resizes(max_pixels: int) -> None:
    """Make Pillow refuse to resize an image to more pixels: a shortest-edge resize made 131 megapixels of 1 x 2000 px.

    Every image processor has its own rules for sides and crops, but all resize with this method. The memory limit would
    stop them too, but only after seconds, and not always for the same image.
    """
    resize = Image.Image.resize

    def resize_within_bounds(self: Image.Image, size: Any, *args: Any, **options: Any) -> Image.Image:
        if size[0] * size[1] > max_pixels:
            raise ValueError(f"{size[0]} x {size[1]} pixels, the limit is {max_pixels}")
        return resize(self, size, *args, **options)

    Image.Image.resize = resize_within_bounds  # type: ignore[method-assign]


def _load(recipe: Recipe) -> Processor:
    """Make the image processor and use it once, so that the forks have everything loaded."""
    for name in ("torch", "torchvision"):
        sys.modules[name] = None  # type: ignore[assignment]  # to transformers, not installed
    processor = recipe.make_processor()
    _prepare(processor, Image.new("RGB", (64, 64)))
    return processor


def _prepare(processor: Processor, image: Image.Image) -> Any:
    return processor(images=image, return_tensors="np")["pixel_values"][0].astype("float32", copy=False)


def _run_and_exit(function: Callable[[], None]) -> None:
    exit_code = 1
    try:
        function()
        exit_code = 0
    except (EOFError, BrokenPipeError):
        exit_code = 0  # The worker has ended or closed the decoder.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(exit_code)


def _decode(recipe: Recipe, processor: Processor, requests: int, responses: int, pixels: int) -> None:
    """Respond to each image with a line of JSON; write the values of the input into the memory file `pixels`.

    The arguments are file descriptors. The first line says that the decoder is ready.
    """
    _limit_memory(MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * recipe.max_image_pixels)
    images = FileIO(requests)
    _respond(responses, {})
    while True:
        (size,) = SIZE.unpack(read_exactly(images, SIZE.size))
        body = bytes(read_exactly(images, size))
        # SIGALRM's default action ends the process, even in C code.
        signal.setitimer(signal.ITIMER_REAL, recipe.timeout_s)
        try:
            values = _make_input(recipe, processor, body)
            _write(pixels, values.tobytes())
            response = {"shape": values.shape}
        except JobError as error:
            response = {"code": error.code, "detail": error.detail, "cause": repr(error.__cause__ or error)[:200]}
        signal.setitimer(signal.ITIMER_REAL, 0)
        _respond(responses, response)


def _make_input(recipe: Recipe, processor: Processor, body: bytes) -> Any:
    try:
        image = decode_image(body, recipe.max_image_pixels, input_px=recipe.input_px)
    except MemoryError as error:
        raise CorruptImage("Decoding the image needs too much memory: send a smaller one.") from error
    try:
        values = _prepare(processor, image)
        if values[0].size > recipe.max_input_pixels:
            raise ValueError(f"{values[0].size} pixels, the limit is {recipe.max_input_pixels}")
    except Exception as error:
        # A processor can raise anything. It has worked for another RGB image, so only this one's dimensions can be why.
        raise UnsupportedDimensions from error
    return values


def _limit_memory(more_bytes: int) -> None:
    with suppress(ValueError, OSError):  # macOS has no such limit, and the inherited limit may be lower
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, mapped + more_bytes))


def _respond(pipe: int, response: dict[str, Any]) -> None:
    os.write(pipe, json.dumps(response).encode() + b"\n")


def _write(file: int, body: bytes) -> None:
    written = 0
    while written < len(body):
        written += os.pwrite(file, memoryview(body)[written:], written)


def read_exactly(pipe: FileIO, size: int) -> bytearray:
    """Read exactly `size` bytes; raises EOFError if the pipe ends before."""
    body = bytearray(size)
    view, filled = memoryview(body), 0
    while filled < size:
        if not (count := pipe.readinto(view[filled:])):
            raise EOFError
        filled += count
    return body


if __name__ == "__main__":
    main()
