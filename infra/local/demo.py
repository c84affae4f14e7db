"""Shows on one photo, without any set-up, what the service does; run by `just demo`.

Exits with 0, or with 1 and the last lines of the stack's log.
"""

import base64
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from addresses import StackError
from interrupts import Interrupts
from stack import Stack

ROOT = Path(__file__).resolve().parents[2]
PHOTO = Path("tests", "photos", "chelsea.png")

ANSWER_S = 60.0
POLL_S = 0.05
LOG_TAIL_LINES = 40


class DemoError(Exception):
    """The service did not answer as it should."""


def main() -> int:
    """Start a separate stack, analyze the photo twice, stop."""
    Interrupts().install()
    console = Console(highlight=False)
    with TemporaryDirectory(prefix="image-analysis-demo-") as directory:
        log = Path(directory, "stack.log")
        try:
            demonstrate(console, log)
        except (StackError, DemoError, httpx.HTTPError) as error:
            if log.exists():
                tail = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
                console.print("The end of the log:", *tail, sep="\n", markup=False, soft_wrap=True)
            console.print(f"error: {error}", style="bold red", markup=False, soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("Stopped.")
            return 130
    console.print("\n[bold]Next[/]: [cyan]uv run just dev[/] keeps it running; then open http://127.0.0.1:8000")
    return 0


def demonstrate(console: Console, log: Path) -> None:
    """Analyze the photo, then again from the cache.

    Raises:
        StackError: the stack does not start.
        DemoError: an answer is not what it should be.
    """
    console.print("Starting the service; loading the model takes some seconds ...")
    with console.status("Starting") as progress, Stack(free_ports=True, log=log) as stack:
        with httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as client:
            progress.update("Analyzing")
            answer, elapsed_ms = analyze(client)
            labels = read(client.get(f"/models/{answer['result']['model']['id']}"))["labels"]
            console.print("", summary(answer, elapsed_ms), predictions(answer), "", sep="\n")
            console.print(f"The model knows {len(labels)} kinds of things: {', '.join(labels)}.\n")
            start_s = time.perf_counter()
            again = submit(client)
            elapsed_ms = (time.perf_counter() - start_s) * 1000
        if not read(again).get("cached") or again.status_code != httpx.codes.OK:
            raise DemoError("The same photo was queued again: its result should have come from the cache.")
        console.print(f"The same photo again: 200 at once, [bold]from the cache[/], in [bold]{elapsed_ms:.0f} ms[/]")
        progress.update("Stopping")


def submit(client: httpx.Client) -> httpx.Response:
    """Post the photo as a client without a library would: base64 in JSON."""
    image_data = base64.b64encode((ROOT / PHOTO).read_bytes()).decode()
    return client.post("/analyze-image", json={"image_data": image_data})


def analyze(client: httpx.Client) -> tuple[dict[str, Any], float]:
    """Submit the photo and wait for the end of its job; return the last status and the time in milliseconds.

    Raises:
        DemoError: the photo was refused, or its job failed or did not end in time.
    """
    start_s = time.perf_counter()
    body = read(submit(client))
    while body["status"] in {"PENDING", "PROCESSING"}:
        if time.perf_counter() - start_s > ANSWER_S:
            raise DemoError(f"The job is still {body['status']} after {ANSWER_S:.0f} s.")
        time.sleep(POLL_S)
        body = read(client.get(f"/analysis-status/{body['job_id']}"))
    if body["status"] != "COMPLETED":
        raise DemoError(f"The job ended {body['status']}: {(body.get('error') or {}).get('detail')}")
    return body, (time.perf_counter() - start_s) * 1000


def read(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer's body.

    Raises:
        DemoError: the answer is an error.
    """
    if not answer.is_success:
        raise DemoError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body


def summary(answer: dict[str, Any], elapsed_ms: float) -> Table:
    """Say in a sentence what the photo shows, which model says so, and how long it took."""
    result = answer["result"]
    where = "from the cache" if answer["cached"] else f"{answer['processing_time_ms']:.0f} ms of it in the worker"
    table = Table.grid(padding=(0, 2))
    table.add_row("Photo", str(PHOTO))
    table.add_row("Shows", f"[bold green]{result['label']}[/], {result['confidence']:.1%} sure")
    table.add_row("Model", result["model"]["id"])
    table.add_row("Took", f"{elapsed_ms:.0f} ms, {where}")
    return table


def predictions(answer: dict[str, Any]) -> Table:
    """Draw the best labels as bars."""
    table = Table.grid(padding=(0, 2))
    for prediction in answer["result"]["predictions"]:
        bar = ProgressBar(total=1, completed=prediction["confidence"], width=30)
        table.add_row("", prediction["label"], bar, f"{prediction['confidence']:6.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
