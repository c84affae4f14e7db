"""Image tests: the shipped images in a real container engine; all tests share one composition.

If the CPU wheel of torch cannot be fetched from its usual source, set `TORCH_WHEELS` to a folder that contains it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from addresses import Addresses
from images.composition import START_S, Composition
from support.samples import base64_body
from support.waiting import wait_until

PASSWORD = "open, sesame"
BUILD_S = 600
WITHOUT_TORCH = {"WORKER_TARGET": "worker-openvino"}
Submit = Callable[[bytes], str]
Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def addresses() -> Addresses:
    return Addresses.choose({}, free_ports=True)


@pytest.fixture(scope="session")
def built(addresses: Addresses) -> Composition:
    """The images, built from this checkout; no container runs yet."""
    composition = Composition(
        {
            "API_PORT": str(addresses.api_port),
            "DASHBOARD_PORT": str(addresses.dashboard_port),
            "DASHBOARD_PASSWORD": PASSWORD,
            "RATE_LIMIT_MAX_REQUESTS": "1000",
        }
    )
    composition.compose("build", timeout_s=BUILD_S)
    composition.extend(WITHOUT_TORCH).compose("build", "worker", timeout_s=BUILD_S)
    return composition


@pytest.fixture(scope="session")
def started(built: Composition) -> Iterator[Composition]:
    try:
        yield built
    finally:
        built.compose("down", "--volumes", timeout_s=START_S)


@pytest.fixture
def composition(started: Composition) -> Composition:
    """Every service healthy, two workers."""
    started.up()
    return started


@pytest.fixture
def client(composition: Composition, addresses: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{addresses.api_port}", trust_env=False) as client:
        yield client


@pytest.fixture
def dashboard(composition: Composition, addresses: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{addresses.dashboard_port}", trust_env=False) as client:
        yield client


@pytest.fixture
def submit(client: httpx.Client) -> Submit:
    """Post an image and return its job's ID."""

    def submit(image: bytes) -> str:
        answer = client.post("/analyze-image", json=base64_body(image))
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    return submit


@pytest.fixture
def ask(client: httpx.Client) -> Ask:
    """Ask for a job until it has ended, and return its last status."""

    def ask(job_id: str) -> dict[str, Any]:
        def status() -> dict[str, Any] | None:
            body: dict[str, Any] = client.get(f"/analysis-status/{job_id}").raise_for_status().json()
            return body if body["status"] in ("COMPLETED", "FAILED") else None

        return wait_until(status, f"job {job_id} ends", 60)

    return ask
