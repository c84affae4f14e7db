"""A job's events: how the stream is read, and when a connection that is lost is made again."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from image_analysis_client import AnalysisStatus, AsyncClient, Client, JobStatus, errors
from support.fake_service import RESULT, URL, FakeService, Fault

JOB_ID = "00000000-0000-0000-0000-000000000001"
FOLLOW = ("GET", "analysis-status")
STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
BROKEN = httpx.ReadError("the connection broke")
LINE_ENDS = pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
LABEL = "a\u2028b\u2029c\x85d"
COMPLETED = json.dumps(
    {"job_id": JOB_ID, "status": "COMPLETED", "result": RESULT | {"label": LABEL}}, ensure_ascii=False
)


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in these chunks, and may break after them."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def event(number: int, status: str) -> str:
    return f'id: {number}\ndata: {{"job_id": "{JOB_ID}", "status": "{status}"}}\n\n'


def stream(text: str, *, error: Exception | None = None) -> httpx.Response:
    return httpx.Response(200, headers=STREAM, stream=Chunks(text.encode(), error=error))


def follow(client: Client) -> list[AnalysisStatus]:
    return list(client.job(JOB_ID).events())


def labels(statuses: list[AnalysisStatus]) -> list[str | None]:
    return [status.result.label if status.result else None for status in statuses]


def test_events_go_on_after_a_broken_connection(client: Client, service: FakeService) -> None:
    seen: list[str | None] = []

    def answer(status: str, rest: str = "") -> Fault:
        def fault(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers.get("Last-Event-ID"))
            return stream(event(len(seen), status) + rest)

        return fault

    service.fail(*FOLLOW, answer("PENDING", ": half an event\nid: 9"), BROKEN, answer("CANCELLED"))

    assert [status.status for status in follow(client)] == [JobStatus.PENDING, JobStatus.CANCELLED]
    assert seen == [None, "1"]


@pytest.mark.parametrize("data", ["no JSON", '{"status": "PENDING"}', "[]"])
def test_event_that_is_not_the_apis_is_an_error_of_the_client(client: Client, service: FakeService, data: str) -> None:
    service.fail(*FOLLOW, stream(f"id: 1\ndata: {data}\n\n"))

    with pytest.raises(errors.APIError) as raised:
        follow(client)

    assert (raised.value.code, raised.value.status) == ("unexpected_response", 200)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<p>Welcome</p>", headers={"X-Request-ID": "r1"}),
        httpx.Response(202, json={}, headers={"X-Request-ID": "r1"}),
        httpx.Response(200, headers={"X-Request-ID": "r1"}),
    ],
)
def test_answer_that_is_no_stream_is_an_error_at_once(
    client: Client, service: FakeService, answer: httpx.Response
) -> None:
    service.fail(*FOLLOW, answer)

    with pytest.raises(errors.APIError) as raised:
        follow(client)

    assert type(raised.value) is errors.APIError
    assert vars(raised.value) == {
        "code": "unexpected_response",
        "detail": f"{URL} answered {answer.status_code}, but not as the API does: is the address right?",
        "status": answer.status_code,
        "request_id": "r1",
    }
    assert service.requests == [FOLLOW]


def test_comment_ends_an_outage(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    waiting = [stream("retry: 1000\n\n: ping\n\n", error=BROKEN) for _ in range(3)]
    service.fail(*FOLLOW, *waiting, stream(event(0, "CANCELLED")))

    with Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0.5) as client:
        statuses = follow(client)

    assert ([status.status for status in statuses], len(service.requests)) == ([JobStatus.CANCELLED], 4)


def test_outage_goes_on_while_no_comment_comes(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    service.fail(*FOLLOW, *[stream("retry: 1000\n\n", error=BROKEN) for _ in range(2)])

    with (
        Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0.5) as client,
        pytest.raises(errors.ServiceUnreachable),
    ):
        follow(client)

    assert len(service.requests) == 2


@LINE_ENDS
@pytest.mark.parametrize("size_bytes", [1, 2, 3, 1000])
def test_only_line_ends_of_the_stream_end_its_lines(
    client: Client, service: FakeService, line_end: str, size_bytes: int
) -> None:
    text = f": ping\n\nid: 0\ndata: {COMPLETED}\n\n".replace("\n", line_end).encode()
    chunks = [text[place : place + size_bytes] for place in range(0, len(text), size_bytes)]
    service.fail(*FOLLOW, httpx.Response(200, headers=STREAM, stream=Chunks(*chunks)))

    assert labels(follow(client)) == [LABEL]


@LINE_ENDS
@pytest.mark.anyio
async def test_asynchronous_client_reads_lines_alike(line_end: str) -> None:
    service = FakeService()
    text = f"id: 0\ndata: {COMPLETED}\n\n".replace("\n", line_end).encode()
    chunks = [bytes([byte]) for byte in text]
    service.fail(*FOLLOW, httpx.Response(200, headers=STREAM, stream=Chunks(*chunks)))

    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as client:
        statuses = [status async for status in client.job(JOB_ID).events()]

    assert labels(statuses) == [LABEL]
