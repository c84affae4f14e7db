"""`.ci/run` with stand-ins for the programs that it calls, and what GitHub and pre-commit run against it."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CI = ROOT / ".ci" / "run"
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PARTS = re.findall(r"^run_(\w+)\(\)", CI.read_text(), re.MULTILINE)


class Clone:
    """A stranger's clone, next to nothing else, where only some programs are installed; `python3` notes its calls."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._root, self._calls = folder / "bin", folder / "clone", folder / "calls"
        self._programs.mkdir()
        (self._root / ".ci").mkdir(parents=True)
        shutil.copy(CI, self._root / ".ci" / "run")
        for program in ("bash", "cut", "dirname"):
            (self._programs / program).symlink_to(str(shutil.which(program)))
        self.install("python3", f'echo "$*" >>"{self._calls}"')
        self.install("id", "echo 1000")

    def install(self, program: str, script: str = "") -> None:
        path = self._programs / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *parts: str) -> tuple[int, list[str], list[str]]:
        """Return the exit code, the recipes that were called, and the lines of complaint."""
        command = [str(self._root / ".ci" / "run"), *parts]
        environment = {"PATH": str(self._programs)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        return run.returncode, re.findall("just ([a-z-]+)", "\n".join(calls)), run.stderr.splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_clone_without_an_engine_runs_everything_else_and_says_so(clone: Clone) -> None:
    for program in ("prometheus", "chromium"):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, ["check", "isolated", "demo", "test", "chaos", "operators-test"])
    assert complaints == [".ci/run: no container engine here: the images are not built or tested"]


def test_user_who_cannot_install_a_browser_runs_everything_else(clone: Clone) -> None:
    clone.install("prometheus")
    clone.install("docker")

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, ["check", "isolated", "demo", "test", "chaos", "images-test"])
    assert len(complaints) == 1
    assert "no chromium here" in complaints[0]


def test_part_that_is_asked_for_and_cannot_run_fails(clone: Clone) -> None:
    code, recipes, complaints = clone.run("check", "images")

    assert (code, recipes, len(complaints)) == (1, ["check", "isolated"], 1)


def test_unknown_part_is_refused_before_anything_runs(clone: Clone) -> None:
    assert clone.run("check", "tests") == (2, [], [".ci/run: there is no part tests"])


def test_workflow_runs_every_part_on_every_python_that_is_promised() -> None:
    scripts = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    called = [script.removeprefix(".ci/run ").split() for script in scripts]
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, end = map(int, re.findall(r"3\.(\d+)", requires))

    assert sorted(part for parts in called for part in parts) == sorted(PARTS)
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(first, end)]


def test_hooks_run_locked_tools_and_recipes_that_exist() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    recipes = re.findall(r"^@?([a-z-]+)[^:\n]*:", (ROOT / "justfile").read_text(), re.MULTILINE)

    for hook in local["hooks"]:
        uv, run, locked, program, name, *_ = hook["entry"].split()
        assert (uv, run, locked) == ("uv", "run", "--locked")
        assert program == "ruff" or (program == "just" and name in recipes)
