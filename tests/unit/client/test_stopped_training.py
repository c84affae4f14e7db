"""Trainings that are left early: they are cancelled, or a log record says that they may have been done."""

from collections.abc import Callable

import anyio
import httpx
import pytest

from image_analysis_client import AsyncClient, Client, ServiceUnreachable, WaitTimeout, cancelling
from support.fake_service import URL, FakeService, Fault, problem

TRAIN, ASK, CANCEL = ("PUT", "classifiers"), ("GET", "analysis-status"), ("DELETE", "analysis")
PETS = {label: [f"{label} {number}".encode() for number in range(5)] for label in ("cat", "dog")}


def accept_then(service: FakeService, error: BaseException) -> Callable[[httpx.Request], httpx.Response]:
    """Accept the training, and raise an error before its answer comes."""

    def accept(request: httpx.Request) -> httpx.Response:
        service._train(request, "pets", None)
        raise error

    return accept


def interrupt(_: httpx.Request) -> httpx.Response:
    raise KeyboardInterrupt


def training_status(service: FakeService) -> str:
    """Return the status of the newest job, which is the training."""
    return [*service.statuses.values()][-1]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["code"] for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("answers", [[], [problem(503, "store_unavailable", Retry_After="0")]])
def test_interrupt_of_the_wait_cancels_the_training(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture, answers: list[httpx.Response]
) -> None:
    service.fail(*ASK, interrupt)
    service.fail(*CANCEL, *answers)

    with pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert (training_status(service), warnings(caplog)) == ("CANCELLED", [])


@pytest.mark.parametrize("answers", [[], [problem(409, "request_in_progress")]])
def test_training_is_cancelled_though_the_interrupt_comes_before_its_answer(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture, answers: list[httpx.Response]
) -> None:
    service.fail(*TRAIN, accept_then(service, KeyboardInterrupt()), *answers)

    with pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert (training_status(service), len(service.trainings), warnings(caplog)) == ("CANCELLED", 1, [])
    assert service.requests.count(TRAIN) == 2 + len(answers)


def test_training_that_was_not_sent_is_not_sent_because_of_the_interrupt(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    class Interrupted(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PUT":
                raise KeyboardInterrupt
            request.read()
            return service(request)

    with Client(URL, transport=Interrupted()) as client, pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert (service.requests.count(TRAIN), service.requests.count(CANCEL), warnings(caplog)) == (0, 0, [])


@pytest.mark.parametrize(
    "fault",
    [httpx.Response(204), problem(404, "job_not_found"), httpx.ConnectError("refused"), problem(500, "internal_error")],
)
def test_training_that_could_not_be_cancelled_is_said_to_be_left(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    service.fail(*ASK, interrupt)
    service.fail(*CANCEL, fault)

    with pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert warnings(caplog) == ["training_left_behind"]


@pytest.mark.parametrize("answers", [[httpx.ConnectError("refused")], [problem(409, "request_in_progress")] * 9])
def test_training_that_cannot_be_found_is_said_to_be_left(
    client: Client,
    service: FakeService,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Fault],
) -> None:
    monkeypatch.setattr(cancelling, "CANCELLING_S", 0.5)
    service.fail(*TRAIN, accept_then(service, KeyboardInterrupt()), *answers)

    with pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert (service.requests.count(CANCEL), warnings(caplog)) == (0, ["training_left_behind"])


def test_second_interrupt_ends_the_call_at_once_and_says_what_is_left(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.fail(*ASK, interrupt)
    service.fail(*CANCEL, interrupt)

    with pytest.raises(KeyboardInterrupt):
        client.teach("pets", PETS)

    assert (training_status(service), warnings(caplog)) == ("PENDING", ["training_left_behind"])


def test_errors_leave_the_training_running(service: FakeService) -> None:
    pending = {"job_id": "00000000-0000-0000-0000-000000000001", "status": "PENDING"}
    service.fail(*TRAIN, accept_then(service, httpx.ReadError("the connection broke")))
    service.fail(*ASK, httpx.Response(200, json=pending))
    with Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0) as client:
        with pytest.raises(ServiceUnreachable):
            client.teach("pets", PETS)
        with pytest.raises(WaitTimeout):
            client.teach("pets", PETS, wait_timeout=0)

    assert service.requests.count(CANCEL) == 0


class Withholding(httpx.AsyncBaseTransport):
    """Gives no answer to the first request of one kind, which the service accepts."""

    def __init__(self, service: FakeService, withheld: tuple[str, str]) -> None:
        self._service = service
        self._withheld = withheld
        self.has_accepted = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self._service(request)
        if self._service.requests[-1] == self._withheld and not self.has_accepted.is_set():
            self.has_accepted.set()
            await anyio.sleep_forever()
        return answer


@pytest.mark.anyio
@pytest.mark.parametrize("withheld", [TRAIN, ASK])
async def test_asynchronous_client_that_is_cancelled_cancels_the_training(
    service: FakeService, withheld: tuple[str, str]
) -> None:
    transport = Withholding(service, withheld)
    async with AsyncClient(URL, transport=transport) as client, anyio.create_task_group() as tasks:

        async def run() -> None:
            await client.teach("pets", PETS)

        tasks.start_soon(run)
        await transport.has_accepted.wait()
        tasks.cancel_scope.cancel()

    assert (len(service.trainings), service.requests.count(CANCEL)) == (1, 1)
