"""Every way to ask, on the running stack."""

from collections.abc import Callable
from typing import Any

import httpx

from samples import CHELSEA, base64_body, make_png

Ask = Callable[[str], dict[str, Any]]


def test_every_form_of_a_submission_is_answered_as_its_options_ask(client: httpx.Client, ask: Ask) -> None:
    image, kind = make_png(500), {"Content-Type": "image/png"}
    answers = [
        client.post("/analyze-image", files={"file": CHELSEA.read_bytes()}, data={"top_k": "3", "priority": "high"}),
        client.post("/analyze-image", content=image, params={"top_k": 10}, headers=kind),
        client.post("/analyze-image", json=base64_body(image) | {"min_confidence": 0.2}),
        client.post("/analyze-image", content=image, headers={"Content-Type": "application/octet-stream"}),
    ]

    cat, everything, likely, plain = [ask(answer.json()["job_id"])["result"] for answer in answers]
    again = client.post("/analyze-image", content=image, params={"top_k": 7}, headers=kind)

    assert (cat["label"], len(cat["predictions"])) == ("cat", 3)
    assert len({prediction["label"] for prediction in everything["predictions"]}) == 10
    assert sum(prediction["confidence"] for prediction in everything["predictions"]) > 0.999
    assert plain["predictions"] == everything["predictions"][:5]
    assert likely["predictions"] == [p for p in plain["predictions"] if p["confidence"] >= 0.2]
    assert (again.status_code, again.json()["cached"]) == (200, True)
    assert again.json()["result"]["predictions"] == everything["predictions"][:7]
