"""The running service behaves as its OpenAPI document says: schemathesis with all its checks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from pytest_httpserver import HTTPServer
from redis import Redis

from image_analysis_common import keys
from stack import Stack
from support.api_processes import one_api
from support.classifiers import forget_classifiers
from support.samples import make_png

EXAMPLES = 50
KEY = "a" * 43
# 422 means that another request used the Idempotency-Key: no document can say which keys are used.
# Data that violates the schema may make the URL too long. A deleted classifier is there again when a training ends;
# `--checks all` would check it nevertheless. All checks are the default.
ACCEPTED = """[checks]
negative_data_rejection.expected-statuses = ["4xx", "5xx"]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path = "/classifiers/{name}"
checks.use_after_free.enabled = false

"""
HERE = Path(__file__).parent


@pytest.fixture(params=["open", "with keys"])
def api(request: pytest.FixtureRequest, stack: Stack) -> Iterator[tuple[str, str]]:
    """An API's URL, and the configuration with which a caller is authorized."""
    if request.param == "open":
        yield stack.api_url, ""
        with httpx.Client(base_url=stack.api_url, trust_env=False) as client:
            forget_classifiers(client)
        return
    variables = {"WEBHOOK_SECRET": stack.webhook_secret}
    variables |= {"API_KEYS": f"tester:{sha256(KEY.encode()).hexdigest()}", "RATE_LIMIT_MAX_REQUESTS": "1000000"}
    with one_api(stack.redis_url, FETCH_ALLOWED_NETWORKS="127.0.0.0/8", **variables) as url:
        yield url, f'[auth.openapi]\nbearer.bearer = "{KEY}"\napi_key.api_key = "{KEY}"\n'


@pytest.fixture
def check(httpserver: HTTPServer, tmp_path: Path) -> Callable[..., str]:
    """Run schemathesis on a service; return what it printed."""
    httpserver.expect_request("/cat.png").respond_with_data(make_png(600))

    def check(url: str, *options: str, configuration: str = "", **variables: str) -> str:
        (tmp_path / "schemathesis.toml").write_text(ACCEPTED + configuration)
        environment = os.environ | variables
        environment |= {
            "IMAGE_URL": httpserver.url_for("/cat.png"),
            "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent))),
            "SCHEMATHESIS_HOOKS": "schema_hooks",
        }
        command = [str(Path(sys.prefix, "bin", "st")), "run", f"{url}/openapi.json", "--no-color"]
        command += ["--max-examples", str(EXAMPLES), "--continue-on-failure", *options]
        if os.environ.get("CI"):  # as Hypothesis does
            command.append("--generation-deterministic")
        run = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    return check


def test_service_keeps_its_document(api: tuple[str, str], check: Callable[..., str]) -> None:
    url, configuration = api

    assert "18 selected / 18 total" in check(url, configuration=configuration)


def test_labels_keep_the_document(stack: Stack, check: Callable[..., str]) -> None:
    variables = {"MODEL_ID": "acme/clip", "RATE_LIMIT_MAX_REQUESTS": "1000000", "WEBHOOK_SECRET": stack.webhook_secret}
    with one_api(stack.redis_url, FETCH_ALLOWED_NETWORKS="127.0.0.0/8", **variables) as url:
        printed = check(url, "--include-path-regex", "^/analyze-images?$", UNANNOUNCED="true")

    with Redis.from_url(stack.redis_url) as redis:
        questions = [redis.hget(key, "question") for key in redis.scan_iter(keys.job("*"))]
    assert "2 selected / 18 total" in printed
    assert len(set(questions)) > 1  # some, besides none
