"""A log line that cannot be written is dropped."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import IO

import pytest
import structlog

from image_analysis_common.logs import configure_logs
from image_analysis_common.settings import SharedSettings


@pytest.fixture(params=["auto", "console", "json"])
def settings(request: pytest.FixtureRequest) -> SharedSettings:
    return SharedSettings(log_format=request.param)


@pytest.fixture(params=["pipe without a reader", "full disk", "closed from the start"])
def broken_output(request: pytest.FixtureRequest) -> Iterator[IO[str] | None]:
    """A standard output that cannot be written to; Python sets None for a closed file descriptor."""
    if request.param == "closed from the start":
        yield None
    elif request.param == "full disk":
        with open("/dev/full", "w") as output:  # noqa: PTH123
            yield output
    else:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as output:
            yield output


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The standard library's root logger; its handlers are restored at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def test_line_that_cannot_be_written_is_dropped(
    broken_output: IO[str] | None,
    settings: SharedSettings,
    root_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complaints = io.StringIO()
    monkeypatch.setattr(sys, "stdout", broken_output)
    monkeypatch.setattr(sys, "stderr", complaints)
    configure_logs(settings, "api")

    for _ in range(3):
        structlog.get_logger().info("job_started", image="x" * 10_000)
        root_logger.warning("from a library: %s", "x" * 10_000)

    assert complaints.getvalue() == ""


COLORS = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = "/\x1b]0;owned\x07\x9b2J"
ESCAPED = r"/\x1b]0;owned\x07\x9b2J"


def test_console_shows_control_characters_escaped_and_ordinary_words_as_they_are(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as lines, os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        configure_logs(SharedSettings(log_format="console"), "api")
        log = structlog.get_logger()

        log.info("request", path=HOSTILE, plain="größe", spaced="a b", listed=[HOSTILE])
        root_logger.warning("from a library:\n%s", HOSTILE)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("crashed")
        text = COLORS.sub("", lines.read(io.DEFAULT_BUFFER_SIZE).decode())

    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert f"path='{ESCAPED}' plain=größe" in text
    assert f"listed=['{ESCAPED}']" in text
    assert "spaced='a b'" in text
    assert f"from a library:\n{ESCAPED}" in text
    assert f"ValueError: {ESCAPED}" in text


def test_each_line_is_one_write_that_waits_in_no_buffer(
    settings: SharedSettings, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as lines, os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        configure_logs(settings, "api")

        structlog.get_logger().info("job_started", label="Katze \N{CAT}")
        ours = lines.read(io.DEFAULT_BUFFER_SIZE)
        root_logger.warning("from a library")
        theirs = lines.read(io.DEFAULT_BUFFER_SIZE)

    assert b"job_started" in ours
    assert b"from a library" in theirs
    assert [line.count(b"\n") for line in (ours, theirs)] == [1, 1]


@pytest.mark.parametrize("library", ["httpcore.http11", "httpx", "uvicorn.error", "websockets.server"])
def test_libraries_that_log_headers_at_debug_do_not(library: str, root_logger: logging.Logger) -> None:
    configure_logs(SharedSettings(log_level="DEBUG"), "api")

    assert root_logger.isEnabledFor(logging.DEBUG)
    assert not logging.getLogger(library).isEnabledFor(logging.DEBUG)
