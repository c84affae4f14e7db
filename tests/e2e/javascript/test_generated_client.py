"""Types generated from the OpenAPI document compile, and a TypeScript program uploads files with them."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest

from stack import Stack
from support.samples import CHELSEA

RunNode = Callable[..., "CompletedProcess[str]"]
COMPILE = ["node_modules/typescript/bin/tsc"]


@pytest.fixture(scope="module")
def types(stack: Stack, folder: Path, run_node: RunNode) -> Path:
    """The generated types, in the folder of the programs."""
    document = httpx.get(f"{stack.api_url}/openapi.json", trust_env=False).raise_for_status()
    (folder / "openapi.json").write_text(document.text)
    run_node("generate.js", "openapi.json", "schema.d.ts").check_returncode()
    return folder / "schema.d.ts"


@pytest.mark.usefixtures("types")
def test_file_is_uploaded_with_the_generated_types(stack: Stack, run_node: RunNode) -> None:
    compiled = run_node(*COMPILE)
    assert (compiled.returncode, compiled.stdout) == (0, "")

    run = run_node("upload.js", stack.api_url, str(CHELSEA))

    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout) == {
        "label": "cat",
        "predictions": 3,
        "counts": {"PENDING": 0, "PROCESSING": 0, "COMPLETED": 2, "FAILED": 0, "CANCELLED": 0},
        "code": "invalid_base64",
    }


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("body: { file,", 'body: { file: "a path",', "is not assignable to type"),
        ("top_k: 3", "topk: 3", "'topk' does not exist in type"),
        ('"high"', '"urgent"', "is not assignable to type"),
        ("status.result?.label", "status.result?.name", "Property 'name' does not exist"),
    ],
)
def test_mistake_does_not_compile(folder: Path, run_node: RunNode, right: str, wrong: str, complaint: str) -> None:
    source = (folder / "upload.ts").read_text()
    assert right in source
    (folder / "mistake.ts").write_text(source.replace(right, wrong))

    options = ["--noEmit", "--target", "es2022", "--module", "nodenext", "--strict", "--types", "node"]
    compiled = run_node(*COMPILE, *options, "mistake.ts")

    assert compiled.returncode != 0
    assert complaint in compiled.stdout
