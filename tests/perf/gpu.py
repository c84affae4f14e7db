"""What our worker reaches on a GPU: photos of 224 px per second on ViT-base, next to a bare loop in bfloat16."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from perf.contenders import Model, OurWorker
from perf.photos import SMALL_PX, Photos
from perf.programs import SCRIPTS, Program, ProgramError
from perf.rates import steady_rate
from perf.rows import Say, Turns
from perf.throughput import pace_of

WINDOW_S = 5.0
MAX_COUNT = 20_000
ASK = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"


def find_gpu() -> str:
    """Return the name of the GPU that torch uses.

    Raises:
        ProgramError: there is none.
    """
    name = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False).stdout.strip()
    if not name:
        raise ProgramError("--gpu needs an NVIDIA GPU and torch's CUDA build: torch finds no GPU on this machine.")
    return name


def measure_gpu(redis_url: str, folder: Path, turns: Turns, say: Say) -> None:
    """Print both rates in each round.

    Raises:
        ProgramError, LoadError: a part of ours does not work.
    """
    say("making a ViT-base")
    model = Model("ViT-base", str(folder / "vit-base"), folder / "vit-base")
    with Program("vit-base", [sys.executable, SCRIPTS / "vit_base.py", model.folder], folder) as maker:
        maker.finish()
    photos = Photos("224 px", SMALL_PX)
    with ExitStack() as stack:
        worker = OurWorker(stack, [model], redis_url, folder)
        loop: list[str | Path] = [sys.executable, SCRIPTS / "forward_pass.py"]
        bare = stack.enter_context(Program("forward-pass", loop, folder, has_pipes=True))
        worker.ready()
        dtype, batch_size = worker.precision(model)
        window = worker.window(model)
        for turn in turns:
            request = {"folder": str(model.folder), "dtype": "bfloat16", "batch_size": batch_size}
            limit = float(bare.ask(json.dumps(request | {"duration_s": WINDOW_S})))
            pace = pace_of(worker, model, photos.take(4 * batch_size))
            count = min(max(round(pace * WINDOW_S), 4 * batch_size), MAX_COUNT)
            started_s, ends_s = worker.run(model, photos.take(window.lead + count + window.tail))
            speed = steady_rate(started_s, ends_s, lead=window.lead, tail=window.tail)
            say(
                f"round {turn + 1}: {speed:.0f} photos/s in {dtype} in batches of {batch_size}; "
                f"bare loop in bfloat16: {limit:.0f} ({speed / limit:.0%})"
            )
