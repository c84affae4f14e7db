"""The forward pass alone, on prepared tensors: what no way to serve the model can exceed.

Reads requests as lines of JSON (folder, engine, dtype, batch_size, duration_s) and answers each with images per second.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageClassification


@cache
def load(folder: str, dtype: torch.dtype, device: str) -> Any:
    return AutoModelForImageClassification.from_pretrained(folder, dtype=dtype).eval().to(device)


def open_torch(folder: str, dtype_name: str, batch_size: int) -> Callable[[], object]:
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, dtype_name)
    model = load(folder, dtype, device)
    side_px = model.config.image_size
    pixels = torch.randn(batch_size, 3, side_px, side_px).to(device, dtype)
    return lambda: model(pixel_values=pixels).logits.cpu()  # the copy waits for a GPU


@cache
def open_openvino(folder: str, dtype_name: str, batch_size: int) -> Callable[[], object]:
    """Compile the folder's model for all cores, as OpenVINO's benchmark does for latency."""
    import openvino

    precision = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}[dtype_name]
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    path = f"{folder}/openvino/{'int8' if dtype_name == 'int8' else 'float32'}.xml"
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
    side_px = AutoConfig.from_pretrained(folder).image_size
    pixels = np.random.default_rng(0).normal(size=(batch_size, 3, side_px, side_px)).astype(np.float32)
    return lambda: request.infer([pixels])


@torch.inference_mode()
def images_per_s(run: Callable[[], object], batch_size: int, duration_s: float) -> float:
    run()
    images, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < duration_s:
        run()
        images += batch_size
    return images / elapsed_s


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        open_model = open_openvino if request["engine"] == "openvino" else open_torch
        run = open_model(request["folder"], request["dtype"], request["batch_size"])
        answer = images_per_s(run, request["batch_size"], request["duration_s"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
