"""What the recipes have in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ENVIRONMENT = Path(sys.prefix)


@pytest.mark.parametrize(
    ("variables", "python"),
    [
        ({"VIRTUAL_ENV": f"{ENVIRONMENT}"}, f"{ENVIRONMENT}/bin/python"),
        ({"VIRTUAL_ENV": f"{ENVIRONMENT}", "UV_PYTHON": "3.13"}, "3.13"),
        ({"VIRTUAL_ENV": "/home/somebody/other"}, ""),
    ],
    ids=["uv run --python", "UV_PYTHON", "another environment"],
)
def test_recipes_run_on_the_python_that_uv_was_asked_for(variables: dict[str, str], python: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("UV_PYTHON", "VIRTUAL_ENV")}

    evaluated = subprocess.run(
        [ENVIRONMENT / "bin" / "just", "--evaluate", "UV_PYTHON"],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )

    assert evaluated.stdout == python
