"""The composition passes on every documented setting of the services."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_common.settings import SharedSettings
from image_analysis_worker.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "infra" / "compose.yaml"
EXAMPLE = ROOT / "infra" / ".env.example"
FIXED = {"REDIS_HOST", "REDIS_PORT", "API_HOST", "API_PORT", "METRICS_HOST", "API_METRICS_PORT"}
FIXED |= {"DELIVERER_METRICS_PORT", "WORKER_METRICS_PORT"}
"""Set by the composition itself: the address of Redis, and the services' addresses in their containers."""


@pytest.mark.parametrize(
    ("service", "settings"), [("api", ApiSettings), ("deliverer", DelivererSettings), ("worker", WorkerSettings)]
)
def test_every_setting_of_a_service_is_passed_on(service: str, settings: type[SharedSettings]) -> None:
    environment = yaml.safe_load(COMPOSE.read_text())["services"][service]["environment"]

    assert {name.upper() for name in settings.model_fields} - FIXED <= environment.keys()


def test_example_begins_with_what_an_operator_needs_first_and_the_composition_knows_all_of_it() -> None:
    names = re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)

    first = ["DASHBOARD_PASSWORD", "API_KEYS", "RATE_LIMIT_MAX_REQUESTS", "CORS_ALLOW_ORIGINS", "TRUSTED_PROXIES"]
    assert [name for name in names if name in first] == first
    assert names.index("TRUSTED_PROXIES") < names.index("MODEL_ID")
    assert [name for name in names if not re.search(rf"\b{name}\b", COMPOSE.read_text())] == []


def test_only_what_needs_redis_is_on_its_network() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]

    reach_redis = {name for name, service in services.items() if "inside" in service["networks"]}

    assert reach_redis == {"redis", "api", "deliverer", "worker", "worker-gpu", "dashboard"}


def test_missing_password_names_itself() -> None:
    required = re.findall(r"\$\{(\w+):\?([^}]*)\}", COMPOSE.read_text())

    assert {name for name, _ in required} == {"DASHBOARD_PASSWORD"}
    assert all(name in message and "infra/.env" in message for name, message in required)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "WORKERS=3\n"),
        ("DASHBOARD_PASSWORD=a b'$c\n#WORKERS=1\nWORKERS=2\n", "DASHBOARD_PASSWORD=a b'$c\n#WORKERS=1\nWORKERS=3\n"),
    ],
    ids=["no file", "another number"],
)
def test_number_of_workers_stays_for_the_next_start(before: str | None, after: str, tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "docker").chmod(0o755)
    environment = tmp_path / "infra" / ".env"
    if before is not None:
        environment.write_text(before)
        environment.chmod(0o600)

    called = subprocess.run(
        [
            Path(sys.prefix) / "bin" / "just",
            "--justfile",
            ROOT / "justfile",
            "--working-directory",
            tmp_path,
            "scale",
            "3",
        ],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert called.stdout.endswith("--scale worker=3\n")
    assert environment.read_text().lstrip() == after
    assert before is None or environment.stat().st_mode & 0o777 == 0o600
