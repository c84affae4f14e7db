"""The documents agree with the repository: links, the syntax of examples, and tables of settings and codes."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_common.errors import ServiceError
from image_analysis_common.job_errors import JobError
from image_analysis_common.settings import SharedSettings
from image_analysis_worker.settings import WorkerSettings
from support.documents import API, COMMON, DOCUMENTS, ROOT, WORKER, anchors, blocks, links, rows

by_name = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def kinds(root: type[ServiceError]) -> list[type[ServiceError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


@by_name
def test_every_link_leads_to_a_file_and_a_heading_of_it(document: Path) -> None:
    broken = []
    for link in links(document):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = Path(os.path.normpath(document.parent / name)) if name else document
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@by_name
def test_every_example_can_be_parsed(document: Path) -> None:
    for line, language, text in blocks(document):
        match language:
            case "sh":
                run = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
                assert run.stderr == "", f"line {line}"
                assert not re.search(r"\S.* # ", text), f"line {line}: pasted into zsh, a comment becomes arguments"
            case "python":
                compile(text, f"{document}:{line}", "exec")
            case "json":
                json.loads(text)
            case "yaml":
                yaml.safe_load(text)
            case _:
                assert language in ("", "http", "text"), f"line {line}: {language}"


def test_readme_is_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    ("document", "settings", "inherited"),
    [
        (COMMON, [SharedSettings], None),
        (API, [ApiSettings, DelivererSettings], SharedSettings),
        (WORKER, [WorkerSettings], SharedSettings),
    ],
)
def test_every_setting_is_documented_with_its_default(
    document: Path, settings: list[type[SharedSettings]], inherited: type[SharedSettings] | None
) -> None:
    fields = {name: field for kind in settings for name, field in kind.model_fields.items()}
    own = {name.upper(): field for name, field in fields.items() if not inherited or name not in inherited.model_fields}

    documented = {name.strip("`"): default for name, default, *_ in filter(lambda row: len(row) > 2, rows(document))}

    assert own.keys() <= documented.keys()
    for name, field in own.items():
        if isinstance(field.default, str | int | float):
            value = str(field.default).removesuffix(".0")
            value = value.lower() if isinstance(field.default, bool) else value
            assert documented[name] == f"`{value}`", name


def test_every_error_code_is_documented_with_its_status() -> None:
    cells = [tuple(cell.strip("`") for cell in row[:2]) for row in rows(API)]

    assert {(kind.code, str(kind.status)) for kind in (*kinds(ServiceError), *kinds(JobError))} <= set(cells)
