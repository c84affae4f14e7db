"""Many images in one request, on the running stack."""

import base64

import httpx
from pytest_httpserver import HTTPServer

from stack import Stack
from support.samples import CHELSEA, base64_body, make_jpeg, make_png


def test_every_image_of_a_batch_gets_its_own_verdict_over_a_restart_of_the_api(
    stack: Stack, client: httpx.Client, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/there.jpg").respond_with_data(make_jpeg(610))
    images = [CHELSEA.read_bytes(), *(make_png(seed) for seed in range(611, 617))]
    sources = [*map(base64_body, images), {"image_url": httpserver.url_for("/there.jpg")}]
    bad = [{"image_url": httpserver.url_for("/missing")}, {"image_data": base64.b64encode(b"GIF89a").decode()}]

    answer = client.post("/analyze-images", json={"images": [*sources, *bad], "top_k": 2})
    stack.restart("api")
    stack.wait_until_ready()

    batch = client.get(answer.headers["Location"], params={"wait": 60}).raise_for_status().json()
    singles = [client.get(f"/analysis-status/{job['job_id']}").json() for job in batch["jobs"]]
    again = client.post("/analyze-images", json={"images": sources, "top_k": 2})

    assert answer.status_code == 202
    assert [job["job_id"] for job in batch["jobs"]] == [job["job_id"] for job in answer.json()["jobs"]]
    assert (batch["total"], batch["counts"]["COMPLETED"], batch["counts"]["FAILED"]) == (10, 8, 2)
    assert [job["error"]["code"] for job in batch["jobs"][8:]] == ["fetch_failed", "unsupported_image"]
    assert batch["jobs"] == singles
    assert (batch["jobs"][0]["result"]["label"], len(batch["jobs"][0]["result"]["predictions"])) == ("cat", 2)
    assert (again.status_code, [job["result"] for job in again.json()["jobs"]]) == (
        200,
        [job["result"] for job in batch["jobs"][:8]],
    )
