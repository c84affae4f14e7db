"""The options and texts that several commands share."""

from typing import Annotated
from uuid import UUID

import typer

from image_analysis_client.cli.service import KEY_VARIABLE, URL_VARIABLE

EXIT_CODES = (
    "Exit codes: 0 everything succeeded; 1 something failed; 2 wrong usage, key, model, labels or classifier; "
    "3 the service cannot be reached, or fails; 130 interrupted."
)
Url = Annotated[
    str | None,
    typer.Option("--url", envvar=URL_VARIABLE, help="The service's address. Default: http://127.0.0.1:8000"),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar=KEY_VARIABLE,
        help="Your API key. Better set the variable: other users can see a command's options.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="A,B,C",
        help="For a zero-shot model: the labels to choose from. If a label has a comma, give the option several "
        "times, once for each label.",
    ),
]
Template = Annotated[
    str | None, typer.Option("--template", help="For a zero-shot model: a sentence with {} where the label goes.")
]
JobId = Annotated[UUID, typer.Argument(metavar="ID", help="The job's ID.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON on a terminal, too.")]
Model = Annotated[str | None, typer.Option(help="A model's ID: see the command models.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; failures are shown.")]
ClassifierName = Annotated[
    str | None, typer.Option(help="A classifier of yours, which chooses from its labels: see the command teach.")
]
