"""The process between the local stack and supervisord; a shell script replaces supervisord."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import guardian
from support.waiting import PATIENCE_S, wait_until

SUPERVISORD = Path(guardian.__file__).parents[1] / "supervisord.conf"
EXITED = "2026-01-01 00:00:00,000 WARN exited: worker (exit status 3; not expected)"
KILLED = "2026-01-01 00:00:00,000 WARN exited: api (terminated by SIGKILL; not expected)"
REFUSAL = "image-analysis-worker: MODEL_ID=cats: there is no such folder."


def start(directory: Path, script: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, guardian.__file__, str(directory), "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=stdout,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "stack"
    directory.mkdir()
    return directory


def test_supervisord_has_time_to_stop_its_programs_one_after_another() -> None:
    spans_s = re.findall(r"^stopwaitsecs = (\d+)$", SUPERVISORD.read_text(), re.MULTILINE)

    assert len(spans_s) > 3
    assert sum(map(int, spans_s)) < guardian.STOP_S


def test_exit_is_recorded_with_what_the_program_said(directory: Path) -> None:
    said = [REFUSAL, "a line of another program", EXITED, KILLED, EXITED]
    exits = directory / guardian.EXITS
    process = start(directory, "".join(f"echo '{line}'; " for line in said) + "exec sleep 60")

    wait_until(lambda: exits.exists() and exits.read_text().count("\n") == 2, "both exits are recorded")
    recorded = [json.loads(line) for line in exits.read_text().splitlines()]
    output, _ = process.communicate(timeout=PATIENCE_S)

    assert output.splitlines() == said
    assert recorded == [["worker", 3, REFUSAL], ["worker", 3, ""]]


def test_end_of_input_stops_everything_even_without_a_reader_of_the_log(directory: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    is_up = directory.parent / "up"
    says_much = "yes $(printf %01000d 0) | head -n 200"
    script = f"trap 'exit 7' TERM; {says_much}; sleep 60 & touch {is_up}; while :; do wait; done"
    process = start(directory, script, writer)
    os.close(writer)
    wait_until(is_up.exists, "everything runs")

    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 7
    assert not directory.exists()
