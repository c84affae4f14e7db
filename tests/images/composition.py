"""Runs the composition of `infra/compose.yaml` under a separate name, and reads its state from the engine.

Knows docker's command line, but neither images to classify nor jobs.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "image-analysis-test"
START_S = 300


class Composition:
    """Runs docker and docker compose with the given variables; the developer's own `infra/.env` is left out."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._environment = os.environ | variables

    def extend(self, variables: dict[str, str]) -> "Composition":
        """Return the same composition, with more variables."""
        return Composition({**self._environment, **variables})

    def docker(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run docker and return its output; fail with its error message."""
        run = subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert run.returncode == 0, f"docker {' '.join(arguments)}: {run.stdout[-3000:]}{run.stderr[-3000:]}"
        return run.stdout

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        files = ("--project-name", PROJECT, "--file", "infra/compose.yaml", "--env-file", os.devnull)
        return self.docker("compose", *files, *arguments, timeout_s=timeout_s)

    def up(self, *, workers: int = 2) -> None:
        """Start every service, or repair it, until all are healthy."""
        options = ("--detach", "--wait", "--no-build", "--scale", f"worker={workers}")
        self.compose("up", *options, timeout_s=START_S)

    def containers(self, service: str) -> list[str]:
        """Return the IDs of a service's containers, running or not."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspect(self, *names: str, kind: str = "container") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.docker(kind, "inspect", *names))
        return found

    def events(self, container: str) -> list[dict[str, Any]]:
        """Read the log lines of a container."""
        lines = self.docker("logs", container).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def exit_codes(self, since_s: float) -> dict[str, str]:
        """Return the exit codes of the containers that have ended since then, by name."""
        filters = ("--filter", f"label=com.docker.compose.project={PROJECT}", "--filter", "event=die")
        window = ("--since", f"{since_s:.3f}", "--until", f"{time.time():.3f}")
        lines = self.docker("events", *window, *filters, "--format", "{{json .Actor.Attributes}}").splitlines()
        ended = [json.loads(line) for line in lines]
        return {attributes["name"]: attributes["exitCode"] for attributes in ended}
