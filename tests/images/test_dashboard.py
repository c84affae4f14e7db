"""The dashboard's container: its password, and its pages."""

import httpx
import pytest

from images.composition import Composition
from images.conftest import PASSWORD, Ask, Submit
from support.images import damaged_image, small_images, unique

QUEUE = "analysis-vit-tiny-cifar10"


@pytest.mark.parametrize("login", [None, ("admin", ""), ("admin", "guess")], ids=["no login", "empty", "wrong"])
def test_request_without_the_password_is_refused(dashboard: httpx.Client, login: tuple[str, str] | None) -> None:
    answers = [dashboard.get(path, auth=login) for path in ("/", "/0/data/queues.json", "/0/view/workers")]

    assert [answer.status_code for answer in answers] == [401] * 3


def test_every_page_is_served_with_the_password(dashboard: httpx.Client, submit: Submit, ask: Ask) -> None:
    finished, failed = submit(unique(small_images()[0])), submit(damaged_image())
    assert (ask(finished)["status"], ask(failed)["status"]) == ("COMPLETED", "FAILED")
    dashboard.auth = httpx.BasicAuth("admin", PASSWORD)
    registries = ("queued", "started", "finished", "failed", "deferred", "scheduled", "canceled")

    pages = ["/", "/0/view/workers", "/0/view/jobs"]
    pages += [f"/0/view/jobs/{QUEUE}/{registry}/8/asc/1" for registry in registries]
    pages += [f"/0/view/job/{job_id}" for job_id in (finished, failed)]
    data = ["queues.json", "workers.json", f"jobs/{QUEUE}/finished/50/dsc/1.json", f"job/{finished}.json"]
    data += [f"job/{failed}.json"]
    shown = {path: dashboard.get(path).status_code for path in pages}
    queues, workers, jobs, good, bad = (dashboard.get(f"/0/data/{path}").raise_for_status().json() for path in data)

    assert shown == dict.fromkeys(pages, 200)
    assert [queue["name"] for queue in queues["queues"]] == [QUEUE]
    assert len(workers["workers"]) == 2
    assert finished in {job["id"] for job in jobs["jobs"]}
    assert "label" in good["result"]
    assert "corrupt_image" in bad["exc_info"]


def test_page_of_another_site_changes_nothing_even_with_the_password(dashboard: httpx.Client) -> None:
    dashboard.auth = httpx.BasicAuth("admin", PASSWORD)
    changes = [f"/queue/{QUEUE}/failed/empty", f"/requeue/{QUEUE}"]

    foreign = [dashboard.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code for path in changes]
    own = [dashboard.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code for path in changes]

    assert (foreign, own) == ([403, 403], [200, 200])
    assert dashboard.get(changes[1]).status_code == 405


def test_any_host_name_is_served_with_a_password(dashboard: httpx.Client) -> None:
    dashboard.auth = httpx.BasicAuth("admin", PASSWORD)

    assert dashboard.get("/", headers={"Host": "dashboard.example"}).status_code == 200


def test_composition_refuses_to_start_without_a_password(built: Composition) -> None:
    without = Composition({"DASHBOARD_PASSWORD": ""})

    with pytest.raises(AssertionError, match=r"set DASHBOARD_PASSWORD in infra/.env"):
        without.compose("config", "--quiet")
