"""Every service works as usual if the reader of its log has gone."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from pytest_httpserver import HTTPServer
from redis import Redis

from addresses import LOOPBACK, Addresses
from support.api_processes import COMMAND, DELIVERER, WORKER
from support.receivers import SECRET
from support.samples import base64_body, make_jpeg, make_png
from support.waiting import PATIENCE_S, wait_until


@pytest.fixture
def services(redis: Redis, redis_url: str) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """API, worker and deliverer, whose standard output and error are a pipe without a reader; the API's URL."""
    port = Addresses.choose({}, free_ports=True).api_port
    settings = {
        "API_PORT": str(port),
        "REDIS_URL": redis_url,
        "LOG_LEVEL": "DEBUG",
        "FETCH_ALLOWED_NETWORKS": "127.0.0.0/8",
        "WEBHOOK_SECRET": str(SECRET),
    }
    reader, writer = os.pipe()
    os.close(reader)
    with ExitStack() as exits:
        processes = []
        for command in (COMMAND, WORKER, DELIVERER):
            process = subprocess.Popen(command, env=os.environ | settings, stdout=writer, stderr=writer)
            exits.callback(process.wait, 60)
            exits.callback(process.terminate)
            processes.append(process)
        os.close(writer)
        yield f"http://{LOOPBACK}:{port}", processes


def test_services_work_and_stop_as_always(
    services: tuple[str, list[subprocess.Popen[bytes]]], httpserver: HTTPServer
) -> None:
    url, processes = services
    httpserver.expect_request("/hook").respond_with_data(status=204)
    damaged = make_jpeg(1, size_px=(300, 300))[:3000]
    with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:

        def is_ready() -> bool:
            try:
                return client.get("/health/ready").is_success
            except httpx.TransportError:
                return False

        wait_until(is_ready, "the services are ready")

        refused = client.post("/analyze-image", json={"image_data": "?"})
        jobs = [
            client.post("/analyze-image", json=base64_body(body) | {"webhook_url": httpserver.url_for("/hook")})
            for body in (make_png(1), damaged)
        ]
        ended = [client.get(f"/analysis-status/{job.json()['job_id']}", params={"wait": 30}).json() for job in jobs]
        wait_until(lambda: len(httpserver.log) == 2, "both webhooks are delivered")

    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_base64")
    assert [job.status_code for job in jobs] == [202, 202]
    assert [status["status"] for status in ended] == ["COMPLETED", "FAILED"]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
