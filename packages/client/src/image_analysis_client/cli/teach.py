"""The command `teach`: your own labels, learned from folders of photos."""

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from image_analysis_client.cli.classify import INTERRUPTED, left_behind, terminated_like_interrupted
from image_analysis_client.cli.escaping import shell_command, visible
from image_analysis_client.cli.output import print_json
from image_analysis_client.cli.rows import Row
from image_analysis_client.cli.screen import Screen, console
from image_analysis_client.cli.service import Service
from image_analysis_client.cli.sources import Found, find_images, name_source
from image_analysis_client.cli.tables import classifier_lines, failure_line
from image_analysis_client.errors import ExamplesFailed
from image_analysis_client.responses import Classifier
from image_analysis_client.teaching import check_counts
from image_analysis_client.values import Outcome


@dataclass(frozen=True)
class Lesson:
    """What the user asked for."""

    name: str
    folder: Path
    adds: bool
    model: str | None
    service: Service
    is_quiet: bool


def teach(lesson: Lesson, *, as_json: bool) -> int:
    """Train a classifier on the images of a folder's folders, and return the exit code.

    Raises:
        BadParameter: the folder is none to learn from.
        ImageAnalysisError: the service does not answer, or refuses the key, the name or the model.
    """
    found = find_examples(lesson.folder)
    examples = {label: [Path(name) for name in images.names] for label, images in found.items()}
    counts = {label: len(images) for label, images in examples.items()}
    total = sum(counts.values())
    screen = Screen(total, quiet=lesson.is_quiet)
    if skipped := sum(images.skipped_files for images in found.values()):
        screen.note(f"Files skipped, as they are not named like images: {skipped}.")
    try:
        check_counts(counts, adds=lesson.adds)
    except ValueError as error:
        hint = "" if counts else " Make a folder in it for each label."
        raise typer.BadParameter(f"{visible(str(lesson.folder))}: {error}{hint}") from error
    screen.note(f"{total} images: {', '.join(f'{visible(label)} {count}' for label, count in counts.items())}.")
    done = 0

    def advance(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        screen.advance(is_failed=outcome.error is not None)
        if done == total:
            screen.note("All images are analyzed. Training.")

    try:
        with terminated_like_interrupted(), screen.drawn(), lesson.service.connect() as client:
            classifier = client.teach(lesson.name, examples, model=lesson.model, adds=lesson.adds, on_outcome=advance)
    except KeyboardInterrupt:
        screen.say(_stopped(lesson, screen))
        return INTERRUPTED
    except ExamplesFailed as error:
        for _, outcome in error.failed:
            screen.say(failure_line(Row.of(name_source(outcome.source), outcome)))
        screen.say(
            f"Nothing is trained: {len(error.failed)} of {total} images cannot be used. Remove them and try again."
        )
        return 1
    _show(classifier, lesson.service, as_json=as_json)
    return 0


def find_examples(folder: Path) -> dict[str, Found]:
    """Return the images of each folder in a folder, in a fixed order; hidden ones are skipped.

    Raises:
        BadParameter: it cannot be read, or the name of a folder is no label.
    """
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise typer.BadParameter(f"{visible(str(folder))} cannot be read: {error.strerror}.") from error
    for path in folders:
        if visible(path.name) != path.name:
            raise typer.BadParameter(f"The folder's name {visible(path.name)} cannot be a label: rename the folder.")
    return {path.name: find_images([str(path)], recursive=False) for path in folders}


def _stopped(lesson: Lesson, screen: Screen) -> str:
    if not screen.may_be_trained:
        return f"Stopped: nothing is trained. {left_behind(lesson.service, screen)}"
    command = shell_command(["image-analysis", "classifiers", *lesson.service.arguments])
    return (
        f"Stopped, but {visible(lesson.name)} may have been trained: the training was over already, or the service did "
        f"not answer in time. To see when it was trained: {command}"
    )


def _show(classifier: Classifier, service: Service, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        print_json(classifier)
        return
    command = ["image-analysis", "classify", "--classifier", classifier.name, *service.arguments]
    for line in [*classifier_lines(classifier), f"Use it: {shell_command(command)} IMAGE..."]:
        console().print(line, soft_wrap=True)
