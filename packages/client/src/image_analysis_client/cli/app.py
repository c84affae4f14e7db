"""The program: its commands and options, its exit codes, and one line for each error."""

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from image_analysis_client.cli.classify import Run, Target, classify
from image_analysis_client.cli.escaping import visible
from image_analysis_client.cli.options import (
    EXIT_CODES,
    ClassifierName,
    JobId,
    Json,
    Key,
    Labels,
    Model,
    Quiet,
    Template,
    Url,
)
from image_analysis_client.cli.output import print_list, print_status
from image_analysis_client.cli.screen import console
from image_analysis_client.cli.service import Service
from image_analysis_client.cli.sources import refuse_empty
from image_analysis_client.cli.tables import classifiers_table, models_table
from image_analysis_client.cli.teach import Lesson, teach
from image_analysis_client.errors import AuthenticationError, ImageAnalysisError, ServiceUnreachable, Unavailable
from image_analysis_client.values import Options
from image_analysis_common.models import JobStatus

PROGRAM = "image-analysis"
USAGE_CODES = frozenset(
    {
        "model_not_found",
        "labels_required",
        "labels_not_supported",
        "classifier_not_found",
        "classifier_outdated",
        "invalid_classifier_name",
        "embeddings_not_supported",
        "training_not_supported",
    }
)
"""What the service answers if the options ask for what the model, or no model, can do."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    help="Classify images with the Image Analysis API.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"{PROGRAM} {version('image-analysis-client')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("classify", epilog=EXIT_CODES)
def _classify(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, URLs, or - for standard input. Of a folder: files named .jpg, .png, .webp, .gif, "
            ".avif, .bmp and the like; no hidden ones.",
        ),
    ],
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive",
            "-r",
            help="Also look into the folders of folders; symbolic links to folders are not followed.",
        ),
    ] = False,
    model: Model = None,
    top_k: Annotated[int | None, typer.Option(min=1, max=100, help="How many predictions to return.")] = None,
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Leave out predictions below it.")] = None,
    labels: Labels = None,
    template: Template = None,
    classifier: ClassifierName = None,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Add the embedding of each image to the JSON or JSON lines.")
    ] = False,
    priority: Annotated[
        Literal["normal", "high"] | None, typer.Option(help="high goes to the front of the queue.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write CSV to a new file; - is standard output.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON array.")] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write JSON lines: the default where the output is no terminal.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Skip what this CSV or JSONL file of an earlier run has done, try its failures again, append to it.",
        ),
    ] = None,
    quiet: Quiet = False,
    url: Url = None,
    api_key: Key = None,
) -> None:
    """Classify images: files, folders, URLs.

    A row is written when its image ends, so the order of rows varies.
    """
    given: dict[str, Any] = {"model": model, "top_k": top_k, "min_confidence": min_confidence, "priority": priority}
    if classifier and labels:
        raise typer.BadParameter("Choose one of --classifier and --labels.")
    given["classifier"] = classifier
    given["labels"] = labels[0].split(",") if labels and len(labels) == 1 else labels or None
    given |= {"hypothesis_template": template, "embedding": embedding or None}
    options = cast(Options, {name: value for name, value in given.items() if value is not None})
    target = Target.choose(csv, resume, json=json, jsonl=jsonl)
    raise typer.Exit(classify(Run(images, recursive, options, Service(url, api_key), is_quiet=quiet), target))


@app.command("models", epilog=EXIT_CODES)
def _models(json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """List the models that images can be sent to."""
    with Service(url, api_key).connect(max_retry_seconds=0) as client:
        models = client.models()
    print_list(models, models_table, as_json=json)


@app.command("teach", epilog=EXIT_CODES)
def _teach(
    name: Annotated[str, typer.Argument(help="The classifier's name. One that has this name is replaced.")],
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A folder whose folders are the labels: 2 to 50, each with 5 to 200 images."
        ),
    ],
    add: Annotated[
        bool, typer.Option("--add", help="Keep the classifier's other images. One that it has already is relabeled.")
    ] = False,
    model: Model = None,
    json: Json = False,
    quiet: Quiet = False,
    url: Url = None,
    api_key: Key = None,
) -> None:
    """Train a classifier on your own labels: each folder in FOLDER is a label, its images are the examples."""
    lesson = Lesson(name, Path(refuse_empty(folder)), add, model, Service(url, api_key), is_quiet=quiet)
    raise typer.Exit(teach(lesson, as_json=json))


@app.command("classifiers", epilog=EXIT_CODES)
def _classifiers(
    delete: Annotated[str | None, typer.Option(metavar="NAME", help="Delete this classifier.")] = None,
    json: Json = False,
    url: Url = None,
    api_key: Key = None,
) -> None:
    """List your classifiers, or delete one."""
    with Service(url, api_key).connect(max_retry_seconds=0) as client:
        if delete is not None:
            client.delete_classifier(delete)
            console(stderr=True).print(f"The classifier {visible(delete)} is deleted.", soft_wrap=True)
            return
        found = client.classifiers()
    print_list(found, classifiers_table, as_json=json)


@app.command("status", epilog=EXIT_CODES)
def _status(job_id: JobId, json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """Show a job's status. The exit code is 0 whatever the status is."""
    with Service(url, api_key).connect(max_retry_seconds=0) as client:
        print_status(client.job(job_id).status(), as_json=json)


@app.command("watch", epilog=EXIT_CODES)
def _watch(job_id: JobId, json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """Show every status of a job until it ends. The exit code is 1 if it has no result."""
    last = None
    with Service(url, api_key).connect() as client:
        for status in client.job(job_id).events():
            print_status(status, as_json=json)
            last = status.status
    raise typer.Exit(0 if last is JobStatus.COMPLETED else 1)


@app.command("cancel", epilog=EXIT_CODES)
def _cancel(job_id: JobId, url: Url = None, api_key: Key = None) -> None:
    """Cancel a job that has not ended; forget one that has, with its result."""
    with Service(url, api_key).connect(max_retry_seconds=0) as client:
        status = client.job(job_id).cancel()
    if status is None:
        said = "The job had ended. It is forgotten."
    elif status.status is JobStatus.CANCELLED:
        said = "The job is cancelled."
    else:
        said = "A worker has the job. It is cancelled when the worker is done, and its result is dropped."
    console(stderr=True).print(said, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows few characters
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return app(arguments, prog_name=PROGRAM, standalone_mode=False) or 0
    except typer.TyperException as error:
        if error.__class__.__name__ == "NoArgsIsHelpError":
            return 2
        return _refuse(error.format_message(), error.exit_code)
    except ServiceUnreachable as error:
        return _refuse(f"{error.detail} Is the service running? --url or IMAGE_ANALYSIS_URL sets its address.", 3)
    except Unavailable as error:
        return _refuse(error.detail, 3)
    except ImageAnalysisError as error:
        is_usage = isinstance(error, AuthenticationError) or error.code in USAGE_CODES
        return _refuse(error.detail, 2 if is_usage else 1)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 -- the last line of defence: never a traceback
        return _refuse(f"{type(error).__name__}: {error}", 1)


def _refuse(message: str, code: int) -> int:
    console(stderr=True).print(f"{PROGRAM}: {visible(' '.join(message.split()))}", soft_wrap=True)
    return code
