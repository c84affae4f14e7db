"""The programs of this folder in a temporary folder, with their packages from npm."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.programs import find_program
from support.waiting import PATIENCE_S

SOURCES = Path(__file__).parent

RunNode = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "*.py"))
    install = [find_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S)
    return folder


@pytest.fixture(scope="session")
def run_node(folder: Path) -> RunNode:
    """Run Node in the folder, and return how it ended and what it printed."""

    def run_node(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [find_program("node"), *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    return run_node
