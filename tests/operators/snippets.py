"""Programs that the page writes, run as they are."""

import os
import subprocess
import sys
from pathlib import Path

from support.programs import find_program

RUN_S = 180


def run_snippet(language: str, text: str, folder: Path, **variables: str) -> str:
    """Run a text in a folder, as its language is run; return what it prints."""
    match language:
        case "curl":
            command = ["sh", "-c", text]
        case "Python":
            command = [sys.executable, "-c", text]
        case _:
            (folder / "classify.mjs").write_text(text)
            command = [find_program("node"), "classify.mjs"]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"} | variables
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout
