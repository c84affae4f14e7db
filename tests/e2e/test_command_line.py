"""The command line against a running service: what it prints, writes and returns."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from stack import Stack
from support.samples import CHELSEA


def run(stack: Stack, *arguments: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("image-analysis")
    environment = os.environ | {"IMAGE_ANALYSIS_URL": url or stack.api_url}
    command = [program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_folder_is_classified_into_a_table_and_a_second_run_skips_what_is_done(stack: Stack, tmp_path: Path) -> None:
    photos, table = tmp_path / "photos", tmp_path / "out.csv"
    photos.mkdir()
    shutil.copy(CHELSEA, photos)
    (photos / "broken.png").write_text("no image")

    first = run(stack, "classify", photos, "--csv", table)
    shutil.copy(CHELSEA, photos / "broken.png")
    second = run(stack, "classify", photos, "--resume", table)

    assert (first.returncode, second.returncode) == (1, 0), first.stderr + second.stderr
    with table.open() as file:
        labels = sorted((Path(row["source"]).name, row["label"]) for row in csv.DictReader(file))
    assert labels == [("broken.png", "cat"), ("chelsea.png", "cat")]


def test_lines_of_json_go_to_standard_output(stack: Stack) -> None:
    answer = run(stack, "classify", CHELSEA, "--jsonl")

    assert json.loads(answer.stdout)["result"]["label"] == "cat", answer.stderr


def test_service_that_does_not_answer_is_one_line_and_exit_code_3(stack: Stack) -> None:
    answer = run(stack, "models", url="http://127.0.0.1:9")

    assert answer.returncode == 3
    assert answer.stderr.count("\n") == 1
    assert "http://127.0.0.1:9" in answer.stderr
