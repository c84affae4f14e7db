"""Runs that are left early: what still waits is cancelled, whenever the interrupt comes, or a log record says so."""

from collections import Counter

import anyio
import httpx
import pytest

from image_analysis_client import AsyncClient, Client, ServiceUnreachable, cancelling
from support.fake_service import URL, FakeService, problem

SUBMIT, ASK, CANCEL = ("POST", "analyze-images"), ("GET", "analysis-batches"), ("DELETE", "analysis")


@pytest.fixture
def service() -> FakeService:
    service = FakeService()
    service.is_working = False
    return service


def read_left_behind(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return how many images each record at WARNING says may still wait."""
    return [vars(record)["images"] for record in caplog.records if record.levelname == "WARNING"]


def interrupt(request: httpx.Request) -> httpx.Response:
    raise KeyboardInterrupt


def interrupt_submission(service: FakeService) -> None:
    """Interrupt the program when the next batch is accepted, before its answer comes."""

    def accept(request: httpx.Request) -> httpx.Response:
        service._take(request)
        raise KeyboardInterrupt

    service.fail(*SUBMIT, accept)


def test_closing_early_cancels_what_waits(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.is_working = True
    outcomes = client.classify_many(b"%d" % number for number in range(100))
    next(outcomes)
    service.is_working = False
    outcomes.close()

    assert Counter(service.statuses.values()) == {"COMPLETED": 64, "CANCELLED": 36}
    assert service.requests.count(CANCEL) == 36
    assert read_left_behind(caplog) == []


@pytest.mark.parametrize("answers", [[], [problem(409, "request_in_progress")], [problem(429, "", Retry_After="1")]])
def test_batch_is_cancelled_though_the_interrupt_comes_before_its_answer(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture, answers: list[httpx.Response]
) -> None:
    interrupt_submission(service)
    service.fail(*SUBMIT, *answers)

    with pytest.raises(KeyboardInterrupt):
        next(client.classify_many([b"a", b"b"]))

    assert list(service.statuses.values()) == ["CANCELLED"] * 2
    assert (len(service.keys), len(set(service.keys)), service.batches) == (2 + len(answers), 1, [2])
    assert read_left_behind(caplog) == []


def test_batch_is_cancelled_though_its_answer_is_lost_and_the_pause_is_interrupted(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_answer(request: httpx.Request) -> httpx.Response:
        service._take(request)
        raise httpx.ReadError("the connection broke")

    def interrupt(seconds: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    service.fail(*SUBMIT, lose_answer)
    with Client(URL, transport=httpx.MockTransport(service)) as client:
        outcomes = client.classify_many([b"a", b"b"])
        monkeypatch.setattr("time.sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(outcomes)

    assert list(service.statuses.values()) == ["CANCELLED"] * 2
    assert len(set(service.keys)) == 1


def test_batch_that_was_not_sent_to_its_end_is_not_sent_again(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    sent = []

    class Interrupted(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                assert isinstance(request.stream, httpx.SyncByteStream)
                sent.append(next(iter(request.stream)))
                raise KeyboardInterrupt
            return service(request)

    with Client(URL, transport=Interrupted()) as client, pytest.raises(KeyboardInterrupt):
        next(client.classify_many([bytes(100_000)]))

    assert (len(sent), read_left_behind(caplog)) == (1, [])


@pytest.mark.parametrize(
    "answers",
    [
        [httpx.ConnectError("refused")],
        [httpx.Response(404, text="404 page not found")] * 9,
        [problem(429, "rate_limited", Retry_After="60")],
        [problem(409, "request_in_progress")] * 9,
    ],
)
def test_batch_that_cannot_be_found_is_said_to_be_left(
    client: Client,
    service: FakeService,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[httpx.Response | Exception],
) -> None:
    monkeypatch.setattr(cancelling, "CANCELLING_S", 0.5)
    interrupt_submission(service)
    service.fail(*SUBMIT, *answers)

    with pytest.raises(KeyboardInterrupt):
        next(client.classify_many([b"a", b"b"]))

    assert read_left_behind(caplog) == [2]


def test_jobs_that_cannot_be_cancelled_are_said_to_be_left(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.fail(*ASK, interrupt)
    service.fail(*CANCEL, httpx.Response(204), problem(404, "job_not_found"), httpx.ConnectError("refused"))

    with pytest.raises(KeyboardInterrupt):
        next(client.classify_many([b"a", b"b", b"c", b"d"]))

    assert read_left_behind(caplog) == [2]


def test_404_of_a_proxy_is_not_taken_for_jobs_that_have_expired(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    absent = httpx.Response(404, text="404 page not found")
    service.fail(*ASK, interrupt, absent)
    service.fail(*CANCEL, absent)

    with pytest.raises(KeyboardInterrupt):
        next(client.classify_many([b"a", b"b"]))

    assert read_left_behind(caplog) == [2]


def test_second_interrupt_ends_the_run_at_once_and_says_what_is_left(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.fail(*ASK, interrupt, interrupt)

    with pytest.raises(KeyboardInterrupt):
        next(client.classify_many([b"a", b"b"]))

    assert (service.requests.count(CANCEL), read_left_behind(caplog)) == (0, [2])


def test_run_that_an_error_ends_cancels_a_batch_whose_answer_was_lost(
    service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    def lose_answer(request: httpx.Request) -> httpx.Response:
        service._take(request)
        raise httpx.ReadError("the connection broke")

    service.fail(*SUBMIT, lose_answer)
    with (
        Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0) as client,
        pytest.raises(ServiceUnreachable),
    ):
        list(client.classify_many([b"a", b"b"]))

    assert (list(service.statuses.values()), read_left_behind(caplog)) == (["CANCELLED"] * 2, [])


class Withholding(httpx.AsyncBaseTransport):
    """Gives no answer to the first batch, which the service accepts."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.has_accepted = anyio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        answer = self._service(request)
        if request.method == "POST" and not self.has_accepted.is_set():
            self.has_accepted.set()
            await anyio.sleep_forever()
        return answer


@pytest.mark.anyio
async def test_asynchronous_client_that_is_cancelled_cancels_the_batch_under_way(service: FakeService) -> None:
    transport = Withholding(service)
    async with AsyncClient(URL, transport=transport) as client, anyio.create_task_group() as tasks:

        async def run() -> None:
            async for _ in client.classify_many([b"a", b"b"]):
                pass

        tasks.start_soon(run)
        await transport.has_accepted.wait()
        tasks.cancel_scope.cancel()

    assert list(service.statuses.values()) == ["CANCELLED"] * 2
    assert (len(service.keys), len(set(service.keys)), service.batches) == (2, 1, [2])
