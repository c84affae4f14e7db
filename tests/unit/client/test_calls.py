"""Single calls: what is sent, what is repeated, and how a job is waited for."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from io import BytesIO
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from PIL import Image

from image_analysis_client import AsyncClient, Client, JobStatus, RateLimited, ServiceUnreachable, Unavailable, errors
from image_analysis_client.deadline import Deadline
from image_analysis_client.retries import Patience, read_retry_after
from image_analysis_client.values import Source
from support.fake_service import URL, FakeService, Fault, problem
from support.samples import make_image, make_png

SUBMIT = ("POST", "analyze-image")
BROKEN = httpx.ReadError("the connection broke")
JOB_ID = "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    "fault",
    [
        problem(429, "rate_limited", Retry_After="0"),
        problem(503, "queue_full", Retry_After="0"),
        problem(409, "request_in_progress"),
        httpx.Response(502, text="a proxy"),
        httpx.ConnectError("refused"),
        BROKEN,
        httpx.ReadTimeout("silent"),
    ],
)
def test_passing_failure_is_repeated_with_one_idempotency_key(service: FakeService, fault: Fault) -> None:
    service.fail(*SUBMIT, fault)

    with Client(URL) as client:
        result = client.classify(b"image")

    assert result.label == "cat"
    assert service.requests.count(SUBMIT) == 2
    assert (len(service.keys), len(set(service.keys)), str(UUID(service.keys[0]))) == (2, 1, service.keys[0])
    assert len(service.statuses) == 1


@pytest.mark.anyio
async def test_asynchronous_client_repeats_alike(service: FakeService) -> None:
    service.fail(*SUBMIT, problem(503, "queue_full", Retry_After="0"), BROKEN)

    async with AsyncClient(URL) as client:
        result = await client.classify(b"image")

    assert (result.label, len(service.keys), len(set(service.keys))) == ("cat", 3, 1)


def test_two_submissions_have_two_keys(service: FakeService) -> None:
    with Client(URL) as client:
        jobs = [client.submit(b"image") for _ in range(2)]

    assert len(set(service.keys)) == 2
    assert len({job.id for job in jobs}) == 2


@pytest.mark.parametrize("fault", [problem(429, "rate_limited", Retry_After="0"), problem(503, "x"), BROKEN])
def test_retries_can_be_switched_off(service: FakeService, fault: Fault) -> None:
    service.fail(*SUBMIT, fault)

    with Client(URL, max_retry_seconds=0) as client, pytest.raises((RateLimited, Unavailable, ServiceUnreachable)):
        client.submit(b"image")

    assert service.requests == [SUBMIT]


def test_longer_wait_than_allowed_is_refused_at_once(service: FakeService) -> None:
    service.fail(*SUBMIT, problem(429, "rate_limited", Retry_After="121"))

    with Client(URL) as client, pytest.raises(RateLimited) as refused:
        client.submit(b"image")

    assert (refused.value.retry_after, service.requests) == (121, [SUBMIT])


@pytest.mark.parametrize("status", [400, 401, 404, 422, 500, 501])
def test_lasting_failure_is_not_repeated(service: FakeService, status: int) -> None:
    service.fail(*SUBMIT, problem(status, "a_code"))

    with Client(URL) as client, pytest.raises(errors.APIError) as refused:
        client.submit(b"image")

    assert (refused.value.code, refused.value.detail) == ("a_code", "The detail of a_code.")
    assert (refused.value.status, refused.value.request_id, service.requests) == (status, "r1", [SUBMIT])


PAGE_NOT_FOUND = httpx.Response(404, text="404 page not found")


def test_wrong_address_is_an_error_at_once(service: FakeService) -> None:
    service.fail(*SUBMIT, PAGE_NOT_FOUND)

    with Client(URL) as client, pytest.raises(errors.APIError, match="the address is wrong") as refused:
        client.submit(b"image")

    assert (type(refused.value), service.requests) == (errors.APIError, [SUBMIT])


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_404_of_a_proxy_is_repeated_where_the_service_has_answered_before(service: FakeService, kind: str) -> None:
    page = httpx.Response(200, json={"models": []}, headers={"Content-Type": kind})
    service.fail("GET", "models", page)
    service.fail(*SUBMIT, PAGE_NOT_FOUND)

    with Client(URL) as client:
        client.models()
        if kind == "application/json":
            client.submit(b"image")
        else:
            with pytest.raises(errors.APIError, match="the address is wrong"):
                client.submit(b"image")

    assert service.requests.count(SUBMIT) == (2 if kind == "application/json" else 1)


def test_job_is_waited_for_while_a_proxy_answers_in_place_of_the_service(service: FakeService) -> None:
    service.fail("GET", "analysis-status", PAGE_NOT_FOUND)

    with Client(URL) as client:
        assert client.classify(b"image").label == "cat"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(problem(429, "rate_limited", Retry_After="60"), RateLimited), (httpx.ConnectError("no"), ServiceUnreachable)],
)
def test_submission_that_cannot_be_repeated_in_time_ends_with_its_reason(
    service: FakeService, fault: Fault, reason: type[errors.ImageAnalysisError]
) -> None:
    service.fail(*SUBMIT, fault)

    with Client(URL) as client, pytest.raises(reason) as refused:
        client.classify(b"image", wait_timeout=0.2)

    assert service.requests == [SUBMIT]
    assert refused.value.__cause__ is (fault if isinstance(fault, Exception) else None)


def test_submission_without_time_still_names_its_job(service: FakeService) -> None:
    service.is_working = False

    with Client(URL) as client, pytest.raises(errors.WaitTimeout) as ended:
        client.classify(b"image", wait_timeout=0)

    assert [ended.value.job_id] == [*service.statuses]


def test_repeated_submission_asks_the_service_to_wait_only_for_the_time_left(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        monkeypatch.setattr(Deadline, "left_s", lambda *_: 3.5)
        return problem(503, "queue_full", Retry_After="0")

    service.fail(*SUBMIT, refuse)
    with Client(URL) as client:
        client.classify(b"image")

    assert [form.headers["Prefer"] for form in service.forms] == ["wait=20", "wait=3"]


def test_answer_may_take_as_long_as_the_service_fetches_and_waits(service: FakeService) -> None:
    with Client(URL, timeout=1) as client:
        client.classify("https://example.com/a.png")
        list(client.classify_many(["https://example.com/a.png"] * 17))

    assert [form.extensions["timeout"]["read"] for form in service.forms] == [31, 21]


def test_patience_ends_after_its_seconds_and_its_pauses_grow() -> None:
    now_s = 0.0
    pauses = []
    patience = Patience(60, clock=lambda: now_s, chance=lambda: 1.0)

    for _ in range(9):
        pauses.append(patience.pause_after(ServiceUnreachable("No answer.")))
        now_s += pauses[-1]

    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]
    with pytest.raises(ServiceUnreachable):
        patience.pause_after(ServiceUnreachable("No answer."))


@pytest.mark.parametrize(("text", "expected"), [("7", 7.0), ("", None), ("soon", None), ("-1", None)])
def test_retry_after_is_in_seconds(text: str, expected: float | None) -> None:
    assert read_retry_after({"retry-after": text}) == expected


def test_retry_after_can_be_a_date() -> None:
    past = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)

    assert read_retry_after({"retry-after": past}) == 0.0


def test_address_and_key_come_from_the_environment(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_ANALYSIS_URL", URL)
    monkeypatch.setenv("IMAGE_ANALYSIS_API_KEY", "key-1")
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Authorization", ""))
        return httpx.Response(200, json={"models": []})

    service.fail("GET", "models", answer, answer)
    with Client() as client, Client(URL, "key-2") as other:
        client.models()
        other.models()

    assert seen == ["Bearer key-1", "Bearer key-2"]
    assert "key-1" not in repr(client) + repr(vars(client))


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x", None),
        ("x", None),
        ("http://a:b@x", None),
        ("http://a..b", None),
        ("http://xn--", None),
        (URL, "n\u00f6"),
        (URL, "a\nb"),
    ],
)
def test_malformed_address_or_key_is_a_value_error_that_does_not_repeat_it(url: str, key: str | None) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=r"The (service's address must be|API key has)") as refused:
            kind(url, key)
        assert key is None or key not in str(refused.value)


def sources(folder: Path) -> dict[str, Callable[[], Source]]:
    (folder / "a.png").write_bytes(make_png(1))
    return {
        "path": lambda: folder / "a.png",
        "name": lambda: str(folder / "a.png"),
        "bytes": lambda: make_png(1),
        "file": lambda: BytesIO(make_png(1)),
    }


@pytest.mark.parametrize("kind", ["path", "name", "bytes", "file"])
def test_source_is_sent_as_it_is(service: FakeService, tmp_path: Path, kind: str) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        raise BROKEN

    service.fail(*SUBMIT, answer)
    with Client(URL) as client:
        client.submit(sources(tmp_path)[kind](), top_k=3, model="m")

    [body] = bodies
    assert make_png(1) in body
    assert b'name="top_k"\r\n\r\n3\r\n' in body


def test_pillow_image_is_sent_as_png_without_loss(service: FakeService) -> None:
    image = make_image(2).convert("CMYK")
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        raise BROKEN

    service.fail(*SUBMIT, answer)
    with Client(URL) as client:
        client.submit(image)

    png = bodies[0][bodies[0].index(b"\x89PNG") :]
    assert Image.open(BytesIO(png)).tobytes() == image.convert("RGB").tobytes()


def test_missing_file_and_no_source_are_refused_before_anything_is_sent(service: FakeService, tmp_path: Path) -> None:
    with Client(URL) as client:
        with pytest.raises(FileNotFoundError):
            client.submit(tmp_path / "missing.png")
        with pytest.raises(TypeError, match="int is not a path"):
            client.submit(3)  # type: ignore[arg-type]

    assert service.requests == []


def test_job_is_asked_for_waited_for_and_cancelled(service: FakeService) -> None:
    with Client(URL) as client:
        job, other = client.submit(b"image"), client.submit(b"other")
        cancelled = other.cancel()
        result = client.job(str(job.id)).wait()
        status = job.status()
        forgotten = job.cancel()

        with pytest.raises(errors.JobCancelled) as ended:
            other.wait()

    assert (result.label, status.status, status.result) == ("cat", JobStatus.COMPLETED, result)
    assert cancelled is not None
    assert cancelled.status is JobStatus.CANCELLED
    assert forgotten is None
    assert ended.value.job_id == other.id


def test_wait_without_time_is_a_timeout_that_names_the_job(service: FakeService) -> None:
    pending = {"job_id": JOB_ID, "status": "PENDING"}
    service.fail("GET", "analysis-status", httpx.Response(200, json=pending))

    with Client(URL) as client, pytest.raises(errors.WaitTimeout) as ended:
        client.job(JOB_ID).wait(timeout=0)

    assert ended.value.job_id == UUID(JOB_ID)


@pytest.mark.parametrize(("timeout_s", "expected_s"), [(5, 6), (0, 1), (None, 50), (1000, 50)])
def test_no_answer_is_waited_for_much_longer_than_the_job(
    service: FakeService, timeout_s: float | None, expected_s: float
) -> None:
    timeouts: list[dict[str, float]] = []

    def note(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"])
        return httpx.Response(200, json={"job_id": JOB_ID, "status": "CANCELLED"})

    service.fail("GET", "analysis-status", note)
    with Client(URL) as client, pytest.raises(errors.JobCancelled):
        client.job(JOB_ID).wait(timeout=timeout_s)

    [timeout] = timeouts
    assert timeout["read"] == pytest.approx(expected_s, abs=0.5)
    assert timeout["connect"] == pytest.approx(min(expected_s, 30), abs=0.5)


@pytest.mark.parametrize("max_retry_s", [0, 120])
def test_status_that_does_not_come_in_time_is_a_timeout_of_the_wait(service: FakeService, max_retry_s: float) -> None:
    service.fail("GET", "analysis-status", httpx.ReadTimeout("silent"))

    with Client(URL, max_retry_seconds=max_retry_s) as client, pytest.raises(errors.WaitTimeout):
        client.job(JOB_ID).wait(timeout=0)

    assert service.requests == [("GET", "analysis-status")]
