"""rq-dashboard beside the running service: its pages and the data that they are drawn from."""

from collections.abc import Callable
from typing import Any

import httpx

from stack import Stack
from support.samples import base64_body, make_jpeg, make_png

Ask = Callable[[str], dict[str, Any]]
QUEUE = "analysis-vit-tiny-cifar10"


def test_queue_worker_and_jobs_are_shown(stack: Stack, client: httpx.Client, ask: Ask) -> None:
    image = make_jpeg(300, size_px=(400, 300))
    finished, failed = (
        client.post("/analyze-image", json=base64_body(body)).json()["job_id"]
        for body in (make_png(300), image[: len(image) // 2])
    )
    assert (ask(finished)["status"], ask(failed)["status"]) == ("COMPLETED", "FAILED")

    with httpx.Client(base_url=stack.dashboard_url, trust_env=False) as dashboard:

        def data(path: str) -> dict[str, Any]:
            body: dict[str, Any] = dashboard.get(f"/0/data/{path}").raise_for_status().json()
            return body

        [queue] = [queue for queue in data("queues.json")["queues"] if queue["name"] == QUEUE]
        [worker] = data("workers.json")["workers"]
        finished_jobs = data(f"jobs/{QUEUE}/finished/50/dsc/1.json")["jobs"]
        failed_jobs = data(f"jobs/{QUEUE}/failed/50/dsc/1.json")["jobs"]
        pages = ["/", "/0/view/workers", f"/0/view/jobs/{QUEUE}/finished/8/asc/1"]
        pages += [f"/0/view/job/{job_id}" for job_id in (finished, failed)]
        shown = [dashboard.get(page) for page in pages]
        detail = data(f"job/{finished}.json")

    assert queue["finished_job_registry_count"] >= 1
    assert (worker["queues"], worker["state"]) == ([QUEUE], "idle")
    assert finished in {job["id"] for job in finished_jobs}
    assert failed in {job["id"] for job in failed_jobs}
    assert [page.status_code for page in shown] == [200] * 5
    assert "label" in detail["result"]
