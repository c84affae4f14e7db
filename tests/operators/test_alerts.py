"""promtool checks the shipped configuration, and tests the alerts with recorded series."""

import subprocess
from pathlib import Path

import pytest

from support.observability import FOLDER
from support.programs import find_program

PLAYED = Path(__file__).parent / "alerts.yml"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--lint=all", "--lint-fatal", str(FOLDER / "prometheus.yml")),
        ("check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "alerts.yml")),
        ("test", "rules", str(PLAYED)),
    ],
    ids=["configuration", "rules", "alerts as played"],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    command = [find_program("promtool"), *arguments]

    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "SUCCESS" in run.stdout
