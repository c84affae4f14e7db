"""rq-dashboard next to the running service: its pages and their data."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from stack import Stack
from support.samples import base64_body, make_jpeg, make_png

Ask = Callable[[str], dict[str, Any]]
QUEUE = "analysis-vit-tiny-cifar10"
EMPTY_FAILED = f"/queue/{QUEUE}/failed/empty"
"""The path to which the button `Empty` of the failed jobs sends a POST."""

FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "another port of this machine": {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"},
    "another site in an old browser": {"Origin": "https://evil.example"},
    "a sandboxed page": {"Origin": "null"},
    "an origin that is no URL": {"Origin": "http://["},
}


@pytest.fixture
def dashboard(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.dashboard_url, trust_env=False) as dashboard:
        yield dashboard


@pytest.fixture
def failed(client: httpx.Client, ask: Ask) -> str:
    """A job that the dashboard lists as failed."""
    image = make_jpeg(301, size_px=(400, 300))
    job_id = str(client.post("/analyze-image", json=base64_body(image[: len(image) // 2])).json()["job_id"])
    assert ask(job_id)["status"] == "FAILED"
    return job_id


def failed_jobs(dashboard: httpx.Client) -> set[str]:
    listed = dashboard.get(f"/0/data/jobs/{QUEUE}/failed/50/dsc/1.json").raise_for_status().json()
    return {job["id"] for job in listed["jobs"]}


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
        # Workers that other tests have killed are shown until they expire.
        living = f".{stack.pid('worker')}."
        [worker] = [worker for worker in data("workers.json")["workers"] if living in worker["name"]]
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
    assert f'<a href="{stack.api_url}/analysis-status/{finished}">' in shown[3].text
    assert not any("/analysis-status/" in page.text for page in shown[:3])


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_change_requested_by_another_site_is_refused(
    dashboard: httpx.Client, failed: str, headers: dict[str, str]
) -> None:
    paths = (
        EMPTY_FAILED,
        f"/requeue/{QUEUE}",
        f"/job/{failed}/requeue",
        f"/job/{failed}/delete",
        f"/queue/{QUEUE}/compact",
    )

    answers = [dashboard.post(path, headers=headers).status_code for path in paths]

    assert answers == [403] * len(paths)
    assert failed in failed_jobs(dashboard)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_link_changes_nothing(dashboard: httpx.Client, failed: str, method: str) -> None:
    answer = dashboard.request(method, f"/requeue/{QUEUE}", headers={"Sec-Fetch-Site": "none"})

    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert failed in failed_jobs(dashboard)


@pytest.mark.parametrize("origin", ["a page of its own", "the same in an old browser", "no page"])
def test_change_requested_by_the_dashboard_or_a_program_is_made(
    dashboard: httpx.Client, stack: Stack, failed: str, origin: str
) -> None:
    headers = {
        "a page of its own": {"Sec-Fetch-Site": "same-origin", "Origin": stack.dashboard_url},
        "the same in an old browser": {"Origin": stack.dashboard_url},
        "no page": {},
    }[origin]

    answer = dashboard.post(EMPTY_FAILED, headers=headers)

    assert answer.json() == {"status": "OK"}
    assert failed_jobs(dashboard) == set()


@pytest.mark.parametrize("path", ["/", "/0/data/queues.json", "/static/favicon.ico", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example:{port}", "evil.example", "127.0.0.1.evil.example:{port}", "["])
def test_host_name_that_others_can_point_here_is_refused(
    dashboard: httpx.Client, stack: Stack, path: str, host: str
) -> None:
    port = stack.dashboard_url.rpartition(":")[2]

    assert dashboard.get(path, headers={"Host": host.format(port=port)}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:9181", "localhost", "LOCALHOST:9181", "[::1]:9181", "192.0.2.1:9181"])
def test_address_and_localhost_are_served(dashboard: httpx.Client, host: str) -> None:
    assert dashboard.get("/0/data/queues.json", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/0/view/workers", "/nothing"])
def test_no_page_can_show_it_in_a_frame(dashboard: httpx.Client, path: str) -> None:
    assert dashboard.get(path).headers["Content-Security-Policy"] == "frame-ancestors 'none'"
