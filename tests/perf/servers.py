"""The contenders behind HTTP: a plain FastAPI endpoint, and LitServe in a separate environment."""

import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from perf.contenders import START_S, Model, Window
from perf.load import closed_loop
from perf.programs import SCRIPTS, Program, ProgramError, free_port

ENDPOINT_CONNECTIONS = 4

LITSERVE = "0.2.19"
LITSERVE_BATCH_SIZE = 8
LITSERVE_BATCH_TIMEOUT_S = 0.05
LITSERVE_CONNECTIONS = 2 * LITSERVE_BATCH_SIZE
"""One batch in the model and one that waits: so the batch timeout never expires."""


class Endpoint:
    """FastAPI in one process that calls the pipeline in its thread pool."""

    name, keeps_model = "FastAPI", True

    def __init__(self, stack: ExitStack, models: Sequence[Model], folder: Path) -> None:
        self._port = free_port()
        script = SCRIPTS / "fastapi_endpoint.py"
        folders = [model.folder for model in models]
        program = Program("fastapi", [sys.executable, script, str(self._port), *folders], folder)
        self._program = stack.enter_context(program)

    def ready(self) -> None:
        self._program.wait_for_port(self._port, START_S)

    def setting(self, model: Model) -> str:
        return f"uvicorn, one process; transformers' pipeline, float32, {ENDPOINT_CONNECTIONS} connections"

    def window(self, model: Model) -> Window:
        return Window(ENDPOINT_CONNECTIONS)

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        return post_all(self._port, model, photos, ENDPOINT_CONNECTIONS)

    def stop(self) -> None:
        self._program.stop()


class LitServe:
    """A LitServe for each model; paused while others run, because it polls its empty queue 1000 times a second."""

    name, keeps_model = "LitServe", True

    def __init__(self, stack: ExitStack, models: Sequence[Model], folder: Path) -> None:
        self._ports = {model: free_port() for model in models}
        if (uv := shutil.which("uv")) is None:
            raise ProgramError("LitServe gets its environment from uv, and there is none on PATH")
        pins = [f"{name}=={version(name)}" for name in ("torch", "transformers", "pillow", "numpy")]
        python = ".".join(map(str, sys.version_info[:2]))
        command = [uv, "run", "--isolated", "--no-project", "--python", python]
        for pin in (f"litserve=={LITSERVE}", *pins):
            command += ["--with", pin]
        command += ["python", str(SCRIPTS / "litserve_server.py")]
        options = [str(LITSERVE_BATCH_SIZE), str(LITSERVE_BATCH_TIMEOUT_S)]
        self._programs = {
            model: stack.enter_context(
                Program(f"litserve-{model.folder.name}", [*command, str(port), model.folder, *options], folder)
            )
            for model, port in self._ports.items()
        }

    def ready(self) -> None:
        for model, program in self._programs.items():
            program.wait_for_port(self._ports[model], START_S)
            program.pause()

    def setting(self, model: Model) -> str:
        return (
            f"litserve {LITSERVE}, one worker, float32, max_batch_size={LITSERVE_BATCH_SIZE}, "
            f"batch_timeout={LITSERVE_BATCH_TIMEOUT_S}, {LITSERVE_CONNECTIONS} connections"
        )

    def window(self, model: Model) -> Window:
        return Window(LITSERVE_BATCH_SIZE)

    def run(self, model: Model, photos: Sequence[bytes]) -> tuple[float, list[float]]:
        program = self._programs[model]
        program.resume()
        try:
            return post_all(self._ports[model], model, photos, LITSERVE_CONNECTIONS)
        finally:
            program.pause()

    def stop(self) -> None:
        for program in self._programs.values():
            program.stop()


def post_all(port: int, model: Model, photos: Sequence[bytes], connections: int) -> tuple[float, list[float]]:
    """Post each photo to the path of a model."""
    head = f"POST /{model.folder.name} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
    requests = (b"%b%d\r\n\r\n%b" % (head.encode(), len(photo), photo) for photo in photos)
    load = closed_loop(port, requests, connections=connections)
    if set(load.statuses) - {200}:
        raise ProgramError(f"Port {port} answered {dict(load.statuses)}")
    return load.started_s, load.ends_s
