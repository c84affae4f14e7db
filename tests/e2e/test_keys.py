"""API keys through every process: made by the recipe's program, accepted by the API, respected by the worker."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from stack import Stack
from support.api_processes import two_apis
from support.samples import base64_body, make_png
from support.waiting import wait_until


def make_key(name: str) -> tuple[str, str]:
    """Make a key as `just key` does; return it and its entry for `API_KEYS`."""
    program = [sys.executable, "-m", "image_analysis_api.api_keys", name]
    shown = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    key, entry = [line.strip() for line in shown.splitlines() if line.startswith("  ")]
    return key, entry


@dataclass
class Owner:
    """A client that sends its key with every call."""

    client: httpx.Client

    def submit(self, seed: int) -> str:
        answer = self.client.post("/analyze-image", json=base64_body(make_png(seed))).raise_for_status()
        return f"/analysis-status/{answer.json()['job_id']}"

    def wait_for(self, job: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            body: dict[str, Any] = self.client.get(job).raise_for_status().json()
            return body if body["status"] == "COMPLETED" else None

        return wait_until(ended, f"{job} is completed")

    def status_code(self, job: str) -> int:
        return self.client.get(job).status_code


@pytest.fixture
def owners(stack: Stack) -> Iterator[list[Owner]]:
    """Alice and Bob with a key each, and a client without one. Alice and Bob call different API processes."""
    (alice, alices_entry), (bob, bobs_entry) = make_key("alice"), make_key("bob")
    with two_apis(stack.redis_url, API_KEYS=f"{alices_entry},{bobs_entry}", RATE_LIMIT_MAX_REQUESTS="1000000") as (
        one,
        other,
    ):
        clients = [
            httpx.Client(base_url=one, headers={"Authorization": f"Bearer {alice}"}, trust_env=False),
            httpx.Client(base_url=other, headers={"X-API-Key": bob}, trust_env=False),
            httpx.Client(base_url=one, trust_env=False),
        ]
        yield [Owner(client) for client in clients]
        for client in clients:
            client.close()


def test_job_is_shown_to_its_owner_only(owners: list[Owner]) -> None:
    alice, bob, stranger = owners

    led, followed = alice.submit(400), bob.submit(400)
    results = [alice.wait_for(led), bob.wait_for(followed)]
    cached = bob.submit(400)

    assert results[0]["result"] == results[1]["result"] == bob.wait_for(cached)["result"]
    assert [alice.status_code(job) for job in (led, followed, cached)] == [200, 404, 404]
    assert [bob.status_code(job) for job in (led, followed, cached)] == [404, 200, 200]
    assert [stranger.status_code(job) for job in (led, followed, cached)] == [401, 401, 401]
    assert stranger.client.get("/health/ready").status_code == 200
