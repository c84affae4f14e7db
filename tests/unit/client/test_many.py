"""Many images: in which batches they are sent, how far ahead they are read, and what ends the run."""

import gc
import signal
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Self
from weakref import WeakSet

import httpx
import pytest
from PIL import Image

from image_analysis_client import (
    AsyncClient,
    BadRequest,
    Client,
    JobFailed,
    ServiceUnreachable,
    Unavailable,
    submissions,
)
from image_analysis_client.backlog import MAX_BATCH_BYTES, MAX_BATCH_IMAGES
from image_analysis_client.many import MAX_UNFINISHED
from support.fake_service import URL, FakeService, Fault, problem
from support.samples import make_png

SUBMIT, ASK = ("POST", "analyze-images"), ("GET", "analysis-batches")


class Photo(BytesIO):
    """A file that can be counted as long as it lives."""


class Peekable:
    """An iterator that is false at its end, like the one of `more_itertools`."""

    def __init__(self, *sources: bytes) -> None:
        self._sources = deque(sources)

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if not self._sources:
            raise StopIteration
        return self._sources.popleft()


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        pytest.fail(f"This has not ended after {seconds} s.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_each_source_has_one_outcome_that_names_it(client: Client, service: FakeService) -> None:
    sources = [b"image %d" % number for number in range(150)]

    outcomes = list(client.classify_many(sources, top_k=1))

    assert {id(outcome.source) for outcome in outcomes} == set(map(id, sources))
    assert [outcome for outcome in outcomes if outcome.result is None or outcome.job_id is None] == []
    assert len({outcome.job_id for outcome in outcomes}) == len(outcomes) == 150
    assert service.batches == [64, 64, 22]
    assert len(set(service.keys)) == 3


@pytest.mark.anyio
async def test_asynchronous_client_does_the_same() -> None:
    service = FakeService()
    async with AsyncClient(URL, transport=httpx.MockTransport(service)) as client:
        outcomes = [outcome async for outcome in client.classify_many([b"image %d" % n for n in range(70)])]

    assert ([outcome.error for outcome in outcomes], service.batches) == ([None] * 70, [64, 6])


def test_batch_is_bounded_by_bytes(client: Client, service: FakeService) -> None:
    sizes = [6_000_000, 6_000_000, 6_000_000, 17_000_000, 1]

    outcomes = list(client.classify_many(map(bytes, sizes)))

    assert (len(outcomes), service.batches) == (5, [2, 1, 1, 1])
    assert sorted(service.batch_bytes)[-2] < MAX_BATCH_BYTES


def test_batch_is_bounded_by_the_quota_and_the_rest_waits_for_it(
    client: Client, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "image_analysis_client")
    service.quota = 10

    def refill(request: httpx.Request) -> httpx.Response:
        service.quota = 10
        return httpx.Response(200, json={"models": []}, headers=service._quota_headers())

    outcomes = client.classify_many(b"%d" % number for number in range(23))
    first = list(islice(outcomes, 10))
    service.fail("GET", "models", refill, refill)
    rest = list(outcomes)

    assert [outcome.error for outcome in (*first, *rest)] == [None] * 23
    assert service.batches == [10, 10, 3]
    assert [vars(record)["code"] for record in caplog.records] == ["rate_limited"] * 2


def test_quota_that_others_use_up_is_waited_for_without_an_end(service: FakeService) -> None:
    service.fail(*SUBMIT, *[problem(429, "rate_limited", Retry_After="1")] * 2)

    with Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0.5) as client:
        outcomes = list(client.classify_many([b"image"]))

    assert ([outcome.error for outcome in outcomes], service.requests.count(SUBMIT)) == ([None], 3)


def test_lower_limit_of_the_service_makes_smaller_batches(client: Client, service: FakeService) -> None:
    service.max_images = 20

    outcomes = list(client.classify_many(b"%d" % number for number in range(100)))

    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert max(service.batches) == 16


def test_batch_that_a_slow_link_cannot_deliver_in_time_is_split(client: Client, service: FakeService) -> None:
    service.fail(*SUBMIT, *[problem(408, "request_timeout")] * 3)

    outcomes = list(client.classify_many([b"a", b"b", b"c", b"d"]))

    assert [(outcome.source, type(outcome.error)) for outcome in outcomes if outcome.error] == [(b"a", BadRequest)]
    assert (len(outcomes), service.batches) == (4, [1, 1, 1])


@pytest.mark.parametrize("call", [SUBMIT, ASK])
def test_404_of_a_proxy_while_the_service_restarts_is_waited_out(
    client: Client, service: FakeService, call: tuple[str, str]
) -> None:
    service.fail(*call, httpx.Response(404, text="404 page not found"))

    outcomes = list(client.classify_many([b"a", b"b"]))

    assert ([outcome.error for outcome in outcomes], service.batches) == ([None, None], [2])


def test_endless_sources_are_read_a_little_ahead_and_not_kept(client: Client, service: FakeService) -> None:
    alive: WeakSet[Photo] = WeakSet()
    most = read = 0

    def photos() -> Iterator[Photo]:
        nonlocal read
        for number in range(100_000):
            read += 1
            photo = Photo(b"photo %d" % number)
            alive.add(photo)
            yield photo

    with closing(client.classify_many(photos())) as outcomes:
        for _ in islice(outcomes, 3_000):
            most = max(most, len(alive))
    gc.collect()

    assert read <= 3_000 + MAX_UNFINISHED + MAX_BATCH_IMAGES
    assert most <= MAX_UNFINISHED + MAX_BATCH_IMAGES + 1


def test_source_that_cannot_be_read_fails_alone(client: Client, service: FakeService, tmp_path: Path) -> None:
    outcomes = list(client.classify_many([tmp_path / "missing.png", b"image"]))

    assert Counter(type(outcome.error) for outcome in outcomes) == {FileNotFoundError: 1, type(None): 1}
    assert service.batches == [1]


def test_pillow_image_that_cannot_be_decoded_fails_alone(client: Client, service: FakeService) -> None:
    png = bytearray(make_png())
    length = png.index(b"IDAT") - 4
    png[length : length + 4] = bytes(4)

    outcomes = list(client.classify_many([Image.open(BytesIO(png)), b"image"]))

    assert Counter(type(outcome.error) for outcome in outcomes) == {SyntaxError: 1, type(None): 1}
    assert service.batches == [1]


@pytest.mark.parametrize("sources", [[b"a", b"b"], []])
def test_sources_that_are_false_at_their_end_end_the_run(client: Client, sources: list[bytes]) -> None:
    with stopped_after(5):
        outcomes = list(client.classify_many(Peekable(*sources)))

    assert [outcome.error for outcome in outcomes] == [None] * len(sources)


def test_broken_submission_is_sent_again_as_the_same_one(client: Client, service: FakeService) -> None:
    service.fail(*SUBMIT, httpx.ReadError("the connection broke"), problem(503, "draining", Retry_After="0"))

    outcomes = list(client.classify_many([b"a", b"b"]))

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (len(service.keys), len(set(service.keys)), service.batches) == (3, 1, [2])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(httpx.ConnectError("refused"), ServiceUnreachable, id="refused"),
        pytest.param(httpx.Response(404, text="404 page not found"), Unavailable, id="a proxy's 404"),
    ],
)
def test_service_that_stays_away_ends_the_run_after_every_job_has_an_outcome(
    service: FakeService, fault: Fault, error: type[Exception]
) -> None:
    service.fail(*ASK, fault)

    with Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0) as client:
        outcomes = client.classify_many([b"a", b"b"])
        ended = list(islice(outcomes, 2))
        with pytest.raises(error):
            next(outcomes)

    assert [type(outcome.error) for outcome in ended] == [error] * 2
    assert {outcome.job_id for outcome in ended} == service.statuses.keys()


def test_images_refused_for_lack_of_room_are_sent_again(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "RESUBMIT_PAUSE_S", 0.1)
    service.refused_images.extend(["queue_full", "store_unavailable", "corrupt_image"])

    outcomes = list(client.classify_many([b"a", b"b", b"c", b"d"]))

    failed = [outcome for outcome in outcomes if outcome.error]
    assert [(type(outcome.error), outcome.source) for outcome in failed] == [(JobFailed, b"c")]
    assert (len(outcomes), service.batches) == (4, [4, 2])


def test_store_that_stays_away_ends_the_run_and_a_full_queue_does_not(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "RESUBMIT_PAUSE_S", 0.3)
    service.refused_images.extend(["queue_full", "queue_full", "queue_full", "store_unavailable", "store_unavailable"])

    with (
        Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0.5) as client,
        pytest.raises(Unavailable) as stopped,
    ):
        list(client.classify_many([b"a"]))

    assert (stopped.value.code, service.batches) == ("store_unavailable", [1, 1, 1, 1, 1])


def test_refused_options_are_an_error_of_the_run(client: Client, service: FakeService) -> None:
    service.fail(*SUBMIT, problem(422, "invalid_top_k"))

    with pytest.raises(BadRequest):
        next(client.classify_many([b"a", b"b"], top_k=1))


def test_batch_whose_answer_is_lost_before_a_long_429_stays_the_same_one(service: FakeService) -> None:
    def lose_answer(request: httpx.Request) -> httpx.Response:
        service._take(request)
        raise httpx.ReadError("the connection broke")

    service.fail(*SUBMIT, lose_answer, problem(429, "rate_limited", Retry_After="1"))

    with Client(URL, transport=httpx.MockTransport(service), max_retry_seconds=0.9) as client:
        outcomes = list(client.classify_many([b"a", b"b"]))

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (len(service.keys), len(set(service.keys)), service.batches) == (3, 1, [2])
