"""WS /ws/analysis-status/{job_id}: the statuses of the stream of events, as messages."""

from hashlib import sha256

import pytest
from fakeredis import FakeServer
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from support.fakes import MakeApp
from support.samples import base64_body, make_png
from support.steps import WHOLE_RUN, Steps

SOCKET = "/ws/analysis-status/{}"
API_KEYS = f"alice:{sha256(b'a').hexdigest()},bob:{sha256(b'b').hexdigest()}"


def test_websocket_sends_the_same_and_closes(make_app: MakeApp, steps: Steps) -> None:
    with TestClient(make_app()) as client:
        job_id = client.post("/analyze-image", json=base64_body(make_png())).json()["job_id"]
        with client.websocket_connect(SOCKET.format(job_id)) as socket:
            bodies = [socket.receive_json()]
            steps.run_with_retry(job_id)
            bodies += [socket.receive_json() for _ in range(4)]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
        status = client.get(f"/analysis-status/{job_id}").json()

    assert [body["status"] for body in bodies] == WHOLE_RUN
    assert bodies[-1] == status
    assert closed.value.code == 1000


def close_of(client: TestClient, job_id: object, **headers: str) -> tuple[int, str]:
    with (
        client.websocket_connect(SOCKET.format(job_id), headers=headers) as socket,
        pytest.raises(WebSocketDisconnect) as closed,
    ):
        socket.receive_json()
    return closed.value.code, closed.value.reason


def test_websocket_closes_with_the_status_and_the_code_of_an_error(make_app: MakeApp, redis_server: FakeServer) -> None:
    with TestClient(make_app(api_keys=API_KEYS, max_waiters_per_client=1)) as client:
        answer = client.post("/analyze-image", json=base64_body(make_png()), headers={"X-API-Key": "a"})
        job_id = answer.json()["job_id"]

        assert close_of(client, job_id) == (4401, "unauthorized")
        assert close_of(client, job_id, Authorization="Bearer b") == (4404, "job_not_found")
        assert close_of(client, "7", Authorization="Bearer a") == (4400, "invalid_request")
        with client.websocket_connect(SOCKET.format(job_id), headers={"X-API-Key": "a"}) as socket:
            assert socket.receive_json()["status"] == "PENDING"
            assert close_of(client, job_id, Authorization="Bearer a") == (4503, "too_many_waiters")
        redis_server.connected = False
        assert close_of(client, job_id, Authorization="Bearer a") == (4503, "store_unavailable")


def test_websocket_closes_as_a_restart_when_the_process_is_about_to_end(make_app: MakeApp) -> None:
    with TestClient(app := make_app()) as client:
        job_id = client.post("/analyze-image", json=base64_body(make_png())).json()["job_id"]
        with client.websocket_connect(SOCKET.format(job_id)) as socket:
            assert socket.receive_json()["status"] == "PENDING"
            client.portal.call(app.state.services.waiting_room.dismiss)  # type: ignore[union-attr]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()

    assert closed.value.code == 1012
