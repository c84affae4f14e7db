"""The limit: a loop over the model and nothing else, on tensors that are ready.

Reads requests as lines of JSON (folder, dtype, batch_size, duration_s) and answers each with images per second.
"""

import json
import sys
import time
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForImageClassification


@cache
def load(folder: str, dtype: torch.dtype, device: str) -> Any:
    return AutoModelForImageClassification.from_pretrained(folder, dtype=dtype).eval().to(device)


@torch.inference_mode()
def images_per_s(folder: str, dtype_name: str, batch_size: int, duration_s: float) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, dtype_name)
    model = load(folder, dtype, device)
    side_px = model.config.image_size
    pixels = torch.randn(batch_size, 3, side_px, side_px).to(device, dtype)
    model(pixel_values=pixels).logits.cpu()
    images, started_s = 0, time.perf_counter()
    while (elapsed_s := time.perf_counter() - started_s) < duration_s:
        model(pixel_values=pixels).logits.cpu()  # the copy waits for a GPU
        images += batch_size
    return images / elapsed_s


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        answer = images_per_s(request["folder"], request["dtype"], request["batch_size"], request["duration_s"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
