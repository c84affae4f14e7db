"""The command line's files: which images a folder holds, and what a file of an earlier run is good for."""

import csv
import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from image_analysis_client.cli.earlier import EarlierRun
from image_analysis_client.cli.escaping import guarded, guarded_name, shell_command, to_json, visible
from image_analysis_client.cli.rows import CsvLines, JsonArray, JsonLines, Row
from image_analysis_client.cli.sources import find_images
from image_analysis_client.values import Outcome
from image_analysis_common.models import AnalysisResult, ModelRef, Prediction

HOSTILE = [
    "=1+1.png",
    "'=1.png",
    "a\nb.png",
    "\x1b[31mred.png",
    "\u202egnp.png",
    os.fsdecode(b"caf\xe9.png"),
    "[b]x[/b].png",
]
ALIKE = "\\nx0a\n\x0a\u202e'=\udc0a\udcff"
RESULT = AnalysisResult(
    label="tabby, tabby cat",
    confidence=0.5,
    predictions=[Prediction(label="tabby, tabby cat", confidence=0.5)],
    model=ModelRef(id="m", revision="1", preprocessing="1"),
)
FORMATS = pytest.mark.parametrize("row_format", [CsvLines(), JsonLines()])


def done(source: str) -> Row:
    return Row.of(source, Outcome(source, RESULT, job_id=uuid4()))


def failed(source: str) -> Row:
    return Row.of(source, Outcome(source, error=FileNotFoundError(2, "No such file or directory")))


def write(path: Path, row_format: CsvLines | JsonLines, rows: list[Row]) -> None:
    path.write_text(row_format.head + "".join(row_format.line(row, is_first=False) for row in rows))


def test_folder_gives_its_images_in_order_without_hidden_ones_loops_or_pipes(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", ".c.png", "sub/d.webp", "sub/deep/e.gif", ".hidden/f.png"):
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "pipe.png")

    flat = find_images([str(tmp_path)], recursive=False)
    deep = find_images([str(tmp_path), f"{tmp_path}/./a.png", "-", "https://example.com/x"], recursive=True)

    assert flat.names == [str(tmp_path / name) for name in ("a.png", "b.JPG", "self.png")]
    assert deep.names == [
        *(str(tmp_path / name) for name in ("a.png", "b.JPG", "self.png", "sub/d.webp", "sub/deep/e.gif")),
        "-",
        "https://example.com/x",
    ]
    assert (flat.skipped_files, flat.skipped_folders) == (2, 1)


def test_hostile_text_is_shown_as_escapes_and_joiners_stay() -> None:
    assert [visible(name) for name in HOSTILE[2:6]] == [
        "a\\nb.png",
        "\\x1b[31mred.png",
        "\\u202egnp.png",
        "caf\\xe9.png",
    ]
    assert visible("\U0001f468\u200d\U0001f469 é\xa0.png") == "\U0001f468\u200d\U0001f469 é\xa0.png"
    assert shell_command(["a b", "x\x1by'"]) == "'a b' $'x\\x1by\\''"


@given(st.text(ALIKE, max_size=5), st.text(ALIKE, max_size=5))
@example("\n", "\\n")
@example("\\\n", "\\\\n")
def test_no_two_names_share_a_cell(name: str, other: str) -> None:
    assert (guarded_name(name) == guarded_name(other)) == (name == other)


def test_names_with_a_backslash_stay_readable() -> None:
    assert [guarded_name(name) for name in (r"C:\images\a.png", r"C:\new\a.png")] == [
        r"C:\images\a.png",
        r"C:\\new\a.png",
    ]


def test_formulas_get_an_apostrophe() -> None:
    assert [guarded(text) for text in ("=1", "+1", "-1", "@x", "'=1", "\uff1d1", "a=1")] == [
        "'=1",
        "'+1",
        "'-1",
        "'@x",
        "''=1",
        "'\uff1d1",
        "a=1",
    ]


def test_rows_of_hostile_names_are_one_line_of_ascii_control_free_text() -> None:
    for row_format in (CsvLines(), JsonLines()):
        for name in HOSTILE:
            line = row_format.line(done(name), is_first=True)
            assert line.encode().decode().removesuffix("\n").isprintable()
            assert row_format.parse(line.removesuffix("\n")) == (row_format.key(name), "COMPLETED")
    [cells] = csv.DictReader([CsvLines.head, CsvLines().line(done("=1"), is_first=True)])
    assert (cells["source"], cells["label"], cells["confidence"]) == ("'=1", "tabby, tabby cat", "0.5")
    assert json.loads(to_json(HOSTILE)) == HOSTILE


def test_json_array_is_valid_with_any_number_of_rows() -> None:
    array = JsonArray()
    for count in range(3):
        lines = [array.line(done(str(number)), is_first=number == 0) for number in range(count)]
        document = json.loads(array.head + "".join(lines) + array.tail)
        assert [row["source"] for row in document] == [str(number) for number in range(count)]


@FORMATS
def test_earlier_run_knows_what_is_done_and_drops_failures_and_torn_rows(
    tmp_path: Path, row_format: CsvLines | JsonLines
) -> None:
    path = tmp_path / ("out.csv" if isinstance(row_format, CsvLines) else "out.jsonl")
    rows = [*map(done, HOSTILE), failed("again.png"), failed("elsewhere.png")]
    write(path, row_format, rows)
    whole = path.read_text()
    with path.open("a") as file:
        file.write(row_format.line(done("torn.png"), is_first=False)[:30])

    run = EarlierRun.read(path)
    run.make_ready(["again.png", "torn.png"])

    assert [run.has_done(name) for name in (*HOSTILE, "again.png", "torn.png")] == [True] * len(HOSTILE) + [
        False,
        False,
    ]
    assert path.read_text() == whole.replace(row_format.line(rows[-2], is_first=False), "")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_earlier_run_of_a_missing_file_has_done_nothing(tmp_path: Path) -> None:
    run = EarlierRun.read(tmp_path / "new.csv")
    run.make_ready(["a.png"])

    assert (isinstance(run.row_format, CsvLines), run.has_done("a.png")) == (True, False)
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("content", ["name,label\na,b\n", "[1, 2]\n", "{}\n", "hello\n"])
def test_file_of_another_program_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content)

    with pytest.raises(typer.BadParameter, match=r"Line 1 of .* is no row of an earlier run"):
        EarlierRun.read(path)

    assert path.read_text() == content


def test_device_is_no_file_to_resume() -> None:
    with pytest.raises(typer.BadParameter, match="is not a file"):
        EarlierRun.read(Path(os.devnull))
