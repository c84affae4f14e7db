"""`/metrics` of a real API and a real worker: the counts are correct, and the metrics are those of the documents."""

import gzip
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from redis import Redis

from addresses import Addresses
from image_analysis_common import keys, tasks
from image_analysis_common.startup import EXIT_CANNOT_START
from image_analysis_worker.engines.checkpoint import BUNDLED_FOLDER
from support.api_processes import DELIVERER, WORKER, one_api, run_service
from support.documents import INFRA
from support.samples import base64_body, make_jpeg, make_png
from support.scraping import full_name, scrape, values
from support.waiting import PATIENCE_S, wait_until

ROW = re.compile(r"^\| `(image_analysis_\w+)` \|([^|]*)\| (API|worker|deliverer) \|", re.MULTILINE)
STATES = ("idle", "busy", "suspended")


class Service(NamedTuple):
    api: str
    api_metrics: str
    worker_metrics: str
    deliverer_metrics: str


@pytest.fixture(scope="module")
def service(redis_of_module: Redis, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API and a worker with a model that no other test uses; their metrics are on loopback."""
    model = tmp_path_factory.mktemp("models") / "pets"
    model.symlink_to(BUNDLED_FOLDER)
    ports = Addresses.choose({}, free_ports=True)
    variables = {"MODEL_ID": str(model), "RATE_LIMIT_MAX_REQUESTS": "6"}
    with (
        run_service(DELIVERER, redis_url, DELIVERER_METRICS_PORT=str(ports.deliverer_metrics_port)),
        run_service(WORKER, redis_url, WORKER_METRICS_PORT=str(ports.worker_metrics_port), **variables),
        one_api(redis_url, API_METRICS_PORT=str(ports.api_metrics_port), **variables) as api,
    ):
        wait_until(lambda: httpx.get(f"{api}/health/ready", trust_env=False).is_success, "a worker is there")
        metrics_ports = (ports.api_metrics_port, ports.worker_metrics_port, ports.deliverer_metrics_port)
        yield Service(api, *(f"http://127.0.0.1:{port}/metrics" for port in metrics_ports))


@pytest.fixture(scope="module")
def busy_service(service: Service) -> Service:
    """The service after six submissions within the rate limit and one beyond it."""
    image, damaged = make_png(1), make_jpeg(1, size_px=(300, 300))[:3000]
    with httpx.Client(base_url=service.api, trust_env=False) as client:

        def submit(body: dict[str, str]) -> str:
            answer = client.post("/analyze-image", json=body).json()
            job_id = answer.get("job_id", "")

            def has_ended() -> bool:
                return client.get(f"/analysis-status/{job_id}").json()["status"] in ("COMPLETED", "FAILED")

            if job_id:
                wait_until(has_ended, "the job ends")
            return str(answer.get("status"))

        answers = [
            submit(base64_body(image)),
            submit(base64_body(image)),
            submit(base64_body(make_png(2))),
            submit(base64_body(damaged)),
            submit({"image_url": "http://127.0.0.1/cat.png"}),
            submit({"image_data": "?"}),
            submit({"image_data": "one too many"}),
        ]
    assert answers == ["PENDING", "COMPLETED", "PENDING", "PENDING", "400", "400", "429"]
    wait_until(lambda: has_counted(service), "everything is counted")
    return service


def has_counted(service: Service) -> bool:
    """Whether the last answer and the last end, which are counted after they are sent and written, are counted."""
    api, worker = scrape(service.api_metrics), scrape(service.worker_metrics)
    is_last_answered = ("POST", "/analyze-image", "429") in values(api, "http_requests_total")
    return is_last_answered and values(worker, "job_duration_seconds_count") == {(): 3}


def test_counters_add_up_to_the_requests_made(busy_service: Service) -> None:
    api, worker = scrape(busy_service.api_metrics), scrape(busy_service.worker_metrics)

    requests = values(api, "http_requests_total")
    posts = {status: count for (_, route, status), count in requests.items() if route == "/analyze-image"}
    assert posts == {"200": 1, "202": 3, "400": 2, "429": 1}
    assert values(api, "http_request_duration_seconds_count")[("POST", "/analyze-image")] == 7
    assert values(api, "submissions_total") == {("queued",): 3, ("cached",): 1}
    assert values(api, "rate_limit_verdicts_total") == {("admitted",): 6, ("refused",): 1}
    assert values(api, "fetches_total") == {("url_refused",): 1}
    problems = values(api, "http_problems_total")
    problems.pop(("no_worker",), None)  # while the worker started
    assert problems == {("url_refused",): 1, ("invalid_base64",): 1, ("rate_limited",): 1}
    ends = {outcome: count for outcome, count in values(worker, "jobs_total").items() if count}
    assert ends == {("", "completed"): 2, ("corrupt_image", "failed"): 1}
    assert ("job_timeout", "failed") in values(worker, "jobs_total"), "an increase from 0 is seen"
    assert values(worker, "job_duration_seconds_count") == {(): 3}
    assert values(worker, "batch_jobs_sum") == {(): 2}
    stages = values(worker, "worker_stage_seconds_total")
    assert stages.pop(("train",)) == 0
    assert all(seconds > 0 for seconds in stages.values())


def test_documents_name_every_metric_with_its_labels_and_no_other(busy_service: Service) -> None:
    exposed = {
        (full_name(family), source): {label for sample in family.samples for label in sample.labels} - {"le"}
        for source, url in zip(("API", "worker", "deliverer"), busy_service[1:], strict=True)
        for family in scrape(url)
    }

    documented = {
        (name, source): set(re.findall(r"`(\w+)`", labels)) for name, labels, source in ROW.findall(INFRA.read_text())
    }

    assert exposed == documented


def test_queue_and_workers_are_what_redis_holds(service: Service, redis: Redis) -> None:
    idle = {("pets", "idle"): 1, ("pets", "busy"): 0, ("pets", "suspended"): 0}
    suspended = {("pets", "idle"): 0, ("pets", "busy"): 0, ("pets", "suspended"): 1}

    def workers() -> dict[tuple[str, ...], float]:
        found = values(scrape(service.api_metrics), "workers")
        return {labels: count for labels, count in found.items() if labels[0] == "pets"}  # not other tests

    wait_until(lambda: workers() == idle, "the worker is idle")
    redis.set("rq:suspended", 1, ex=30)
    wait_until(lambda: workers() == suspended, "the worker is suspended")
    redis.zadd(keys.MODELS, {"acme/dogs": redis.time()[0]})
    redis.rpush(f"rq:queue:{tasks.queue_name('acme/dogs')}", "a", "b")

    found = scrape(service.api_metrics)
    assert values(found, "queue_jobs").items() >= {("pets",): 0, ("acme/dogs",): 2}.items()
    assert values(found, "redis_up") == {(): 1}
    assert values(found, "redis_memory_used_bytes")[()] > 0


def test_metrics_are_no_part_of_the_api_and_are_sent_as_prometheus_asks(service: Service) -> None:
    plain = httpx.get(service.api_metrics, headers={"Accept": "text/plain", "Accept-Encoding": "identity"})
    with httpx.stream("GET", service.worker_metrics, headers={"Accept-Encoding": "gzip"}) as packed:
        body = gzip.decompress(b"".join(packed.iter_raw()))
    open_metrics = httpx.get(service.api_metrics, headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"image_analysis_jobs_total" in body
    assert b"\nprocess_start_time_seconds " in body, "an alert asks how often a worker starts"
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert httpx.get(f"{service.api}/metrics").status_code == 404
    assert "/metrics" not in httpx.get(f"{service.api}/openapi.json").json()["paths"]


def test_scrape_of_an_api_without_redis_is_answered_at_once() -> None:
    port = Addresses.choose({}, free_ports=True).api_metrics_port

    with one_api("redis://127.0.0.1:1", API_METRICS_PORT=str(port), LOG_LEVEL="ERROR"):
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5)

    assert "image_analysis_redis_up 0.0" in answer.text
    assert answer.elapsed.total_seconds() < 2


@pytest.mark.parametrize("service_name", ["api", "worker"])
def test_metrics_port_in_use_is_reported_in_one_line(service_name: str, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {"REDIS_URL": redis_url, f"{service_name.upper()}_METRICS_PORT": str(port)}
        command = [sys.executable, "-m", f"image_analysis_{service_name}"]

        run = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    assert run.returncode == EXIT_CANNOT_START
    assert run.stderr == (
        f"image-analysis-{service_name}: Metrics cannot be served on 127.0.0.1, port {port}: Address already in use.\n"
    )
