"""The best plain loop for the work of a worker: photos' bytes in, labels out, without a queue, an API or Redis.

Threads decode and prepare the photos of the next batch while the model runs the current one. Takes their number.

Reads requests as lines of JSON: folder, engine, dtype, batch_size, duration_s, photos (a folder), and reduced: whether
JPEGs are decoded at a fraction of their size, at least twice the model's input. Answers each with photos per second.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

TOP_K = 5

Pixels = NDArray[np.float32]


@cache
def open_torch(folder: str, dtype_name: str) -> Callable[[Pixels], Any]:
    dtype = getattr(torch, dtype_name)
    model = AutoModelForImageClassification.from_pretrained(folder, dtype=dtype).eval()
    return lambda pixels: model(pixel_values=torch.from_numpy(pixels).to(dtype)).logits.float().numpy()


@cache
def open_openvino(folder: str, dtype_name: str) -> Callable[[Pixels], Any]:
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}[dtype_name]
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    path = f"{folder}/openvino/{'int8' if dtype_name == 'int8' else 'float32'}.xml"
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()

    def run(pixels: Pixels) -> Any:
        request.infer([pixels])
        return request.get_output_tensor(0).data

    return run


@cache
def open_preparation(folder: str, *, is_reduced: bool) -> Callable[[bytes], Pixels]:
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    sides_px = processor.size["width"] * 2, processor.size["height"] * 2

    def prepare(photo: bytes) -> Pixels:
        image = Image.open(BytesIO(photo))
        if is_reduced:
            image.draft("RGB", sides_px)
        pixels: Pixels = processor(images=image.convert("RGB"), return_tensors="np")["pixel_values"][0]
        return pixels

    return prepare


@cache
def read_photos(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder).iterdir())]


def find_best(logits: Any) -> list[list[int]]:
    """Return the labels' numbers, best first; the confidences would be one more line."""
    best: list[list[int]] = np.argsort(-logits, axis=-1)[:, :TOP_K].tolist()
    return best


@torch.inference_mode()
def photos_per_s(run: Callable[[Pixels], Any], batches: Iterator[list[Future[Pixels]]], duration_s: float) -> float:
    ahead, photos, started_s = next(batches), 0, 0.0
    while True:
        current, ahead = ahead, next(batches)
        find_best(run(np.stack([future.result() for future in current])))
        if not started_s:  # the first batch warms up
            started_s = time.perf_counter()
            continue
        photos += len(current)
        if (elapsed_s := time.perf_counter() - started_s) >= duration_s:
            return photos / elapsed_s


def main() -> None:
    with ThreadPoolExecutor(int(sys.argv[1])) as pool:
        for line in sys.stdin:
            request = json.loads(line)
            open_model = open_openvino if request["engine"] == "openvino" else open_torch
            run = open_model(request["folder"], request["dtype"])
            prepare = open_preparation(request["folder"], is_reduced=request["reduced"])
            photos, size = cycle(read_photos(request["photos"])), request["batch_size"]
            batches = iter(lambda: [pool.submit(prepare, photo) for photo in islice(photos, size)], [])  # noqa: B023
            sys.stdout.write(f"{photos_per_s(run, batches, request['duration_s'])}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
