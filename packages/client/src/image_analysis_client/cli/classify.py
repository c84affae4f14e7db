"""The command `classify`: many images, one row for each."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import typer

from image_analysis_client.cli.earlier import EarlierRun
from image_analysis_client.cli.escaping import shell_command, visible
from image_analysis_client.cli.output import DataOutput, Output, TableOutput, appended, to_stdout, to_terminal
from image_analysis_client.cli.rows import CsvLines, JsonArray, JsonLines, Row, RowFormat
from image_analysis_client.cli.screen import Screen, duration
from image_analysis_client.cli.service import KEY_VARIABLE, Service
from image_analysis_client.cli.sources import find_images, name_source, read_source
from image_analysis_client.cli.tables import failure_line
from image_analysis_client.errors import BadRequest, ImageAnalysisError, JobError, NotFound, NotNow
from image_analysis_client.values import Options
from image_analysis_common.models import JobStatus

INTERRUPTED = 130
OPTION_NAMES = {"hypothesis_template": "--template"}
"""Options of the API that have another name here."""


@dataclass(frozen=True)
class Run:
    """What the user asked for."""

    images: list[str]
    is_recursive: bool
    options: Options
    service: Service
    is_quiet: bool

    def command(self, resume: Path) -> list[str]:
        """Return the command that goes on with a file; an API key never appears in it."""
        words = ["image-analysis", "classify", *(["--recursive"] if self.is_recursive else [])]
        for name, value in self.options.items():
            option = OPTION_NAMES.get(name, f"--{name.replace('_', '-')}")
            for text in value if isinstance(value, list) else [value]:
                words += [option] if text is True else [option, str(text)]
        words += [*self.service.arguments, "--resume", str(resume)]
        if any(name.startswith("-") and name != "-" for name in self.images):
            words.append("--")
        return words + self.images


@dataclass(frozen=True)
class Target:
    """Where the rows go: a file, or standard output if there is none; a table if there is no format."""

    path: Path | None
    row_format: RowFormat | None
    earlier: EarlierRun | None = None

    @classmethod
    def choose(cls, csv: Path | None, resume: Path | None, *, json: bool, jsonl: bool) -> "Target":
        """Decide from the options.

        Raises:
            BadParameter: they contradict each other, or the file is not one to write to.
        """
        if sum((csv is not None and csv != resume, resume is not None, json, jsonl)) > 1:
            raise typer.BadParameter("Choose one of --csv, --json, --jsonl and --resume.")
        if resume is not None:
            earlier = EarlierRun.read(resume)
            return cls(resume, earlier.row_format, earlier)
        if csv is not None and str(csv) != "-":
            if csv.is_file() and csv.stat().st_size:
                name = visible(str(csv))
                raise typer.BadParameter(f"{name} exists: go on with it by --resume, or choose another name.")
            return cls(csv, CsvLines())
        if csv is not None:
            return cls(None, CsvLines())
        if json:
            return cls(None, JsonArray())
        return cls(None, None if sys.stdout.isatty() and not jsonl else JsonLines())


def classify(run: Run, target: Target) -> int:
    """Classify what is not done yet, and return the exit code.

    Raises:
        BadParameter: the output cannot be written.
        ImageAnalysisError: the service does not answer, or knows neither the key nor the model.
    """
    found = find_images(run.images, recursive=run.is_recursive)
    todo = [name for name in found.names if target.earlier is None or not target.earlier.has_done(name)]
    screen = Screen(len(todo), quiet=run.is_quiet)
    if found.skipped_files or (found.skipped_folders and not found.names):
        hint = " Add --recursive to look into folders." if found.skipped_folders and not run.is_recursive else ""
        screen.note(f"Files skipped, as they are not named like images: {found.skipped_files}.{hint}")
    if not todo:
        screen.note("Everything is done already." if found.names else "No images found.")
        return 0
    _ask_for_service(run)
    with ExitStack() as stack:
        stack.enter_context(terminated_like_interrupted())
        output = _open(stack, screen, target, run, todo)
        return _work(run, target, todo, screen, output)


def _work(run: Run, target: Target, todo: list[str], screen: Screen, output: Output) -> int:
    started_s = monotonic()
    done = failed = 0
    shows_failures = target.path is not None or not sys.stdout.isatty()
    try:
        with screen.drawn(), run.service.connect() as client:  # noqa: SIM117, the second needs the first
            with closing(client.classify_many(map(read_source, todo), **run.options)) as outcomes:
                for outcome in outcomes:
                    if outcome.error is not None and _is_about_service(outcome.error):
                        raise outcome.error
                    row = Row.of(name_source(outcome.source), outcome)
                    output.write(row)
                    is_failed = row.status is not JobStatus.COMPLETED
                    done, failed = done + 1, failed + is_failed
                    if is_failed and shows_failures:
                        screen.say(failure_line(row))
                    screen.advance(is_failed=is_failed)
    except KeyboardInterrupt:
        screen.say(f"Stopped: {done} of {len(todo)} images are done. {left_behind(run.service, screen)}")
        screen.say(_how_to_go_on(run, target))
        return INTERRUPTED
    except ImageAnalysisError as error:
        if not isinstance(error, BadRequest):
            left = f" {left_behind(run.service, screen)}" if screen.left_behind else ""
            screen.say(f"Stopped: {done} of {len(todo)} images are done.{left}")
            screen.say(_how_to_go_on(run, target))
        raise
    if len(todo) > 1:
        where = f" The rows are in {visible(str(target.path))}." if target.path else ""
        screen.note(f"{done - failed} classified, {failed} failed, in {duration(monotonic() - started_s)}.{where}")
    return 1 if failed else 0


def _open(stack: ExitStack, screen: Screen, target: Target, run: Run, todo: list[str]) -> Output:
    if target.row_format is None:
        return TableOutput(screen, all_predictions="top_k" in run.options)
    row_format = target.row_format
    if target.path is None:
        emit = to_terminal(screen) if sys.stdout.isatty() else to_stdout
        if row_format.head:
            emit(row_format.head)
        if row_format.tail:
            stack.callback(emit, row_format.tail)
        return DataOutput(row_format, emit)
    try:
        if target.earlier is not None:
            target.earlier.make_ready(todo)
        emit = stack.enter_context(appended(target.path))
        if row_format.head and not (target.path.is_file() and target.path.stat().st_size):
            emit(row_format.head)
    except OSError as error:
        raise typer.BadParameter(f"{visible(str(target.path))} cannot be written: {error.strerror}.") from error
    return DataOutput(row_format, emit)


def _ask_for_service(run: Run) -> None:
    """Fail before the first image if the service does not answer, or refuses the key, the model or the classifier."""
    with run.service.connect(max_retry_seconds=0) as client:
        try:
            if "classifier" in run.options:
                client.classifier(run.options["classifier"])
            if "model" in run.options:
                client.model(run.options["model"])
            else:
                client.models()
        except NotNow:  # busy: the images will wait
            return


def _is_about_service(error: Exception) -> bool:
    """Whether an image failed only because the service did: the next run tries it again."""
    return isinstance(error, ImageAnalysisError) and not isinstance(error, BadRequest | NotFound | JobError)


def left_behind(service: Service, screen: Screen) -> str:
    """Say what became of the images that were sent and have no result."""
    if not screen.left_behind:
        return "What still waited is cancelled."
    how = (
        "GET /analyses?status=PENDING lists them, and image-analysis cancel ID cancels one."
        if service.has_key
        else "Only with an API key could they be listed and cancelled."
    )
    return (
        f"Up to {screen.left_behind} may still wait in the service, which did not answer in time to cancel them. "
        f"It analyzes them and keeps the results for the next run. {how}"
    )


def _how_to_go_on(run: Run, target: Target) -> str:
    if target.path is not None:
        hint = f" (set {KEY_VARIABLE} first)" if run.service.needs_key_variable else ""
        return f"To go on{hint}: {shell_command(run.command(target.path))}"
    if sys.stdout.isatty() or isinstance(target.row_format, JsonArray):
        return "Nothing was written to a file: use --csv FILE to be able to go on."
    return "To go on, add --resume FILE to the command, with the file that holds the rows (CSV or JSON lines)."


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Within the block, SIGTERM is an interrupt, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
