"""The process that decodes images for `decoder`: the template loads a model's image processor once and forks decoders.

It never loads torch. A fork takes 6 ms and 6 MB; starting a new Python for each decoder would take 0.8 s and 50 MB.
"""

import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image

from image_analysis_common.job_errors import CorruptImage, JobError, UnsupportedDimensions
from image_analysis_worker.decoding.decode import decode_image
from image_analysis_worker.decoding.preparation import Preparation, Processor, examine
from image_analysis_worker.decoding.sandbox import enter_sandbox
from image_analysis_worker.decoding.timm import TimmProcessor, is_timm

MEMORY_BASE_BYTES = 160 * 1024**2
MEMORY_BYTES_PER_PIXEL = 24
"""The memory that a decoder may use on top of its template's. The worst format, WebP with alpha, took 20 bytes for each
pixel of the limit; the resize of an image in full size took 15."""

SIZE = struct.Struct(">Q")


@dataclass(frozen=True)
class Recipe:
    """Whose image processor turns images into inputs, and the limits on it."""

    folder: str
    """A folder with the image processor's configuration, as transformers writes it."""
    model_sides_px: Sequence[int]
    """The input size that the model's configuration states, if it does."""
    max_image_pixels: int
    timeout_s: float
    allows_reduced: bool = True
    """Whether JPEGs may be decoded at a fraction of their size, if the image processor makes the same input of them."""


def main() -> None:
    """Fork a decoder for each request, until the worker ends; if the processor cannot be loaded, send the reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: nobody waits for the forks
    recipe = Recipe(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(
        OSError
    ):  # Linux: if the machine or the container runs out of memory, these processes are killed first
        Path("/proc/self/oom_score_adj").write_text("1000")
    # One damaged image can raise 60,000 warnings, and Python keeps each.
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = (recipe.max_image_pixels + 1) // 2  # Pillow refuses from twice this number
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.init()
    with socket.socket(fileno=0) as worker, suppress(OSError):
        try:
            processor, preparation = _load(recipe)
        except Exception as error:  # noqa: BLE001
            # The last line of defense: a checkpoint can name any processor, with any parameters.
            _respond(worker.fileno(), {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:500]})
            return
        _limit_resizes(max(recipe.max_image_pixels, preparation.max_input_pixels))
        _respond(worker.fileno(), asdict(preparation))
        enter_sandbox()
        gc.freeze()
        while fds := socket.recv_fds(worker, 1, 3)[1]:
            if os.fork() == 0:
                worker.close()
                _run_and_exit(lambda fds=fds: _decode(Inputs(recipe, processor, preparation), *fds))  # type: ignore[misc]
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


def _load(recipe: Recipe) -> tuple[Processor, Preparation]:
    """Make the image processor and try it, so that the forks have everything loaded."""
    for name in ("torch", "torchvision"):
        sys.modules[name] = None  # type: ignore[assignment]  # to transformers, not installed
    config = json.loads(Path(recipe.folder, "config.json").read_bytes())
    processor: Processor
    if is_timm(config):
        processor = TimmProcessor(config)
    else:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(recipe.folder, backend="pil", local_files_only=True)
    preparation = examine(
        processor,
        recipe.model_sides_px,
        max_image_pixels=recipe.max_image_pixels,
        allows_reduced=recipe.allows_reduced,
    )
    return processor, preparation


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


@dataclass(frozen=True)
class Inputs:
    """Makes inputs from images."""

    recipe: Recipe
    processor: Processor
    preparation: Preparation

    def make(self, body: bytes) -> NDArray[Any]:
        """Make one input.

        Raises:
            CorruptImage: the bytes cannot be decoded.
            UnsupportedDimensions: the processor cannot resize the image, or would make it too large.
        """
        preparation = self.preparation
        try:
            image = decode_image(body, self.recipe.max_image_pixels, reduced_px=preparation.reduced_px)
        except MemoryError as error:
            raise CorruptImage("Decoding the image needs too much memory: send a smaller one.") from error
        try:
            values = preparation.make(self.processor, image)
            if values[0].size > preparation.max_input_pixels:
                raise ValueError(f"{values[0].size} pixels, the limit is {preparation.max_input_pixels}")
        except Exception as error:
            # A processor can raise anything. It has worked for another RGB image, so only this one's dimensions can be
            # why.
            raise UnsupportedDimensions from error
        return values


def _decode(inputs: Inputs, requests: int, responses: int, memory: int) -> None:
    """Respond to each image with a line of JSON.

    The arguments are file descriptors. A request is the size of an image; its bytes are in the file `memory`, where the
    values of the input take their place. The first line says that the decoder is ready.
    """
    _limit_memory(MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * inputs.recipe.max_image_pixels)
    images = FileIO(requests)
    _respond(responses, {})
    while True:
        (size,) = SIZE.unpack(read_exactly(images, SIZE.size))
        # SIGALRM's default action ends the process, even in C code.
        signal.setitimer(signal.ITIMER_REAL, inputs.recipe.timeout_s)
        try:
            values = inputs.make(os.pread(memory, size, 0))
            write_all(memory, np.ascontiguousarray(values).data.cast("B"))
            response: dict[str, Any] = {"shape": values.shape}
        except JobError as error:
            response = {"code": error.code, "detail": error.detail, "cause": repr(error.__cause__ or error)[:200]}
        signal.setitimer(signal.ITIMER_REAL, 0)
        _respond(responses, response)


def _limit_memory(more_bytes: int) -> None:
    with suppress(ValueError, OSError):  # macOS has no such limit, and the inherited limit may be lower
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, mapped + more_bytes))


def _respond(pipe: int, response: dict[str, Any]) -> None:
    os.write(pipe, json.dumps(response).encode() + b"\n")


def write_all(file: int, body: bytes | memoryview) -> None:
    """Write to the start of a file."""
    rest, written = memoryview(body), 0
    while rest:
        count = os.pwrite(file, rest, written)
        rest, written = rest[count:], written + count


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
