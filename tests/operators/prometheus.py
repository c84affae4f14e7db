"""A separate Prometheus with the composition's configuration, except for addresses and intervals."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.observability import FOLDER
from support.programs import find_program
from support.waiting import wait_until

INTERVAL = "1s"


class Prometheus:
    """Queries a running Prometheus over its HTTP API."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def is_ready(self) -> bool:
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; fail with Prometheus's error message."""
        body = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", f"{parameters}: {body['error']}"
        return body["data"]

    def query(self, expression: str, *, at_s: float | None = None) -> dict[tuple[str, ...], float]:
        """Return an expression's values, keyed by the values of their labels in the order of the labels' names."""
        moment = {} if at_s is None else {"time": str(at_s)}
        found = self.ask("query", query=expression, **moment)["result"]
        return {
            tuple(value for _, value in sorted(series["metric"].items())): float(series["value"][1]) for series in found
        }


@contextmanager
def run_prometheus(folder: Path, port: int, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run Prometheus over the shipped configuration, with an address for each of its jobs."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    for job in configuration["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    shutil.copy(FOLDER / "alerts.yml", folder)
    command = [
        find_program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        subprocess.Popen(command) as process,
    ):
        prometheus = Prometheus(client)
        try:
            wait_until(lambda: process.poll() is not None or prometheus.is_ready(), "Prometheus is ready")
            assert process.poll() is None, "Prometheus has ended: see its last lines"
            yield prometheus
        finally:
            process.terminate()
