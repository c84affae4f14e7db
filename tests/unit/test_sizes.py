"""Files and functions stay small; ruff bounds the parameters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = {"packages": 250, "infra": 250, "tests": 400}
FUNCTION_LINES_MAX = 60


def find_modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", LINES_MAX)
def test_no_file_is_too_long(folder: str) -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in find_modules(folder)}

    assert lines
    assert {path: count for path, count in lines.items() if count > LINES_MAX[folder]} == {}


@pytest.mark.parametrize("folder", LINES_MAX)
def test_no_function_is_too_long(folder: str) -> None:
    lines = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in find_modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert lines
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES_MAX} == {}
