"""The program: its commands and options, its exit codes, and one line for each error."""

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import typer

from image_analysis_client.cli.classify import Run, Target, classify, resume_command
from image_analysis_client.cli.escaping import to_json, visible
from image_analysis_client.cli.screen import console
from image_analysis_client.cli.tables import models_table, status_line
from image_analysis_client.client import Client
from image_analysis_client.errors import AuthenticationError, ImageAnalysisError, ServiceUnreachable, Unavailable
from image_analysis_client.responses import AnalysisStatus
from image_analysis_client.values import Options
from image_analysis_common.models import JobStatus

PROGRAM = "image-analysis"
EXIT_CODES = (
    "Exit codes: 0 everything succeeded; 1 something failed; 2 wrong usage, key or model; "
    "3 the service cannot be reached; 130 interrupted."
)

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="IMAGE_ANALYSIS_URL", help="The service's address. Default: http://127.0.0.1:8000"),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="IMAGE_ANALYSIS_API_KEY",
        help="Your API key. Better set the variable: other users can see a command's options.",
    ),
]
JobId = Annotated[UUID, typer.Argument(metavar="ID", help="The job's ID.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON on a terminal, too.")]

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
            metavar="IMAGE...",
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
    model: Annotated[str | None, typer.Option(help="A model's ID: see the command models.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, max=100, help="How many predictions to return.")] = None,
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Leave out predictions below it.")] = None,
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
    url: Url = None,
    api_key: Key = None,
) -> None:
    """Classify images: files, folders, URLs.

    A row is written when its image ends, so the order of rows varies.
    """
    options = Options()
    if model is not None:
        options["model"] = model
    if top_k is not None:
        options["top_k"] = top_k
    if min_confidence is not None:
        options["min_confidence"] = min_confidence
    if priority is not None:
        options["priority"] = priority
    target = Target.choose(csv, resume, json=json, jsonl=jsonl)
    command = resume_command(options, is_recursive=recursive, url=url, api_key=api_key)
    raise typer.Exit(classify(Run(images, recursive, options, url, api_key, quiet, command), target))


@app.command("models", epilog=EXIT_CODES)
def _models(json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """List the models that images can be sent to."""
    with Client(url, api_key, max_retry_seconds=0) as client:
        models = client.models()
    if json or not sys.stdout.isatty():
        for model in models:
            typer.echo(to_json(model.model_dump(mode="json")))
    else:
        console().print(models_table(models))


@app.command("status", epilog=EXIT_CODES)
def _status(job_id: JobId, json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """Show a job's status. The exit code is 0 whatever the status is."""
    with Client(url, api_key, max_retry_seconds=0) as client:
        _show(client.job(job_id).status(), as_json=json)


@app.command("watch", epilog=EXIT_CODES)
def _watch(job_id: JobId, json: Json = False, url: Url = None, api_key: Key = None) -> None:
    """Show every status of a job until it ends. The exit code is 1 if it has no result."""
    last = None
    with Client(url, api_key) as client:
        for status in client.job(job_id).events():
            _show(status, as_json=json)
            last = status.status
    raise typer.Exit(0 if last is JobStatus.COMPLETED else 1)


@app.command("cancel", epilog=EXIT_CODES)
def _cancel(job_id: JobId, url: Url = None, api_key: Key = None) -> None:
    """Cancel a job. One that has ended keeps its result."""
    with Client(url, api_key, max_retry_seconds=0) as client:
        job = client.job(job_id)
        if (status := job.status().status).is_final:
            raise _Failure(f"The job has ended already: it is {status}.")
        job.cancel()
    console(stderr=True).print("Cancelled: a job that a worker already has ends as CANCELLED when the worker is done.")


class _Failure(typer.TyperException):
    exit_code = 1


def _show(status: AnalysisStatus, *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        typer.echo(to_json(status.model_dump(mode="json")))
    else:
        console().print(status_line(status), soft_wrap=True)


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
    except (ServiceUnreachable, Unavailable) as error:
        return _refuse(error.detail, 3)
    except ImageAnalysisError as error:
        is_usage = isinstance(error, AuthenticationError) or error.code == "model_not_found"
        return _refuse(error.detail, 2 if is_usage else 1)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 -- the last line of defence: never a traceback
        return _refuse(f"{type(error).__name__}: {error}", 1)


def _refuse(message: str, code: int) -> int:
    console(stderr=True).print(f"{PROGRAM}: {visible(' '.join(message.split()))}", soft_wrap=True)
    return code
