"""The running service keeps every promise of its OpenAPI document: schemathesis with all its checks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from stack import Stack
from support.api_processes import one_api
from support.samples import make_png

EXAMPLES = 50
KEY = "a" * 43
# 422 is an Idempotency-Key that another request came with: no document can say which are taken.
# Data that breaks the schema may make a URL that is too long.
ACCEPTED = """[checks]
negative_data_rejection.expected-statuses = ["4xx", "5xx"]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]
"""
HERE = Path(__file__).parent


@pytest.fixture(params=["open", "with keys"])
def api(request: pytest.FixtureRequest, stack: Stack) -> Iterator[tuple[str, str]]:
    """An API's URL, and the configuration that lets a caller in."""
    if request.param == "open":
        yield stack.api_url, ""
        return
    variables = {"WEBHOOK_SECRET": stack.webhook_secret}
    variables |= {"API_KEYS": f"tester:{sha256(KEY.encode()).hexdigest()}", "RATE_LIMIT_MAX_REQUESTS": "1000000"}
    with one_api(stack.redis_url, FETCH_ALLOWED_NETWORKS="127.0.0.0/8", **variables) as url:
        yield url, f'[auth.openapi]\nbearer.bearer = "{KEY}"\napi_key.api_key = "{KEY}"\n'


def test_service_keeps_its_document(api: tuple[str, str], httpserver: HTTPServer, tmp_path: Path) -> None:
    url, configuration = api
    (tmp_path / "schemathesis.toml").write_text(ACCEPTED + configuration)
    httpserver.expect_request("/cat.png").respond_with_data(make_png(600))
    environment = os.environ | {
        "IMAGE_URL": httpserver.url_for("/cat.png"),
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent))),
        "SCHEMATHESIS_HOOKS": "schema_hooks",
    }
    command = [str(Path(sys.prefix, "bin", "st")), "run", f"{url}/openapi.json", "--checks", "all", "--no-color"]
    command += ["--max-examples", str(EXAMPLES), "--continue-on-failure"]

    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 selected / 12 total" in run.stdout
