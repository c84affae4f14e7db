"""What the courier sends to a webhook's receiver, and what it makes of each answer."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from uuid import uuid4

import httpx
import pytest
import respx

from image_analysis_api.deliverer.courier import Courier, Report, Verdict
from image_analysis_api.deliverer.outbox import Delivery
from image_analysis_common.models import JobStatus
from image_analysis_common.records import JobRecord
from support.fakes import make_egress
from support.receivers import SECRET, read

pytestmark = pytest.mark.anyio

URL = "https://receiver.test/hooks?token=t0ps3cret"
ADDRESS = "93.184.216.34"


async def resolve(host: str, port: int) -> list[str]:
    return [ADDRESS]


async def resolve_inside(host: str, port: int) -> list[str]:
    return ["10.0.0.1"]


async def resolve_nothing(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def router() -> respx.Router:
    return respx.Router(assert_all_called=False)


def make_courier(
    router: respx.Router, resolve: Callable[[str, int], Awaitable[list[str]]] = resolve, timeout_s: float = 5
) -> Courier:
    outbound = make_egress(resolve=resolve, transport=httpx.MockTransport(router.async_handler))
    return Courier(outbound, (SECRET,), timeout_s=timeout_s)


def make_delivery() -> Delivery:
    record = JobRecord(status=JobStatus.CANCELLED, image_hash="1" * 64, webhook_url=URL, owner="alice")
    fields = {name.encode(): value.encode() for name, value in record.to_hash().items()}
    return Delivery(str(uuid4()), "receiver.test:443", attempts=1, age_s=0, record=fields)


async def test_signed_status_is_posted_to_the_checked_address_in_the_name_of_the_host(router: respx.Router) -> None:
    route = router.post(f"https://{ADDRESS}/hooks", params={"token": "t0ps3cret"}).respond(204)
    delivery = make_delivery()

    report = await make_courier(router).attempt(delivery)

    [call] = route.calls
    assert report == Report(Verdict.DELIVERED, "204")
    assert (call.request.headers["host"], call.request.extensions["sni_hostname"]) == ("receiver.test",) * 2
    assert call.request.headers["webhook-id"] == f"msg_{delivery.job_id}"
    body = read(call.request, owner="alice")
    assert (body["job_id"], body["status"]) == (delivery.job_id, "CANCELLED")


@pytest.mark.parametrize(
    ("status", "verdict", "retry_after"),
    [
        *((status, Verdict.DELIVERED, "") for status in (200, 202, 204, 299)),
        *((status, Verdict.REJECTED, "") for status in (301, 302, 304, 400, 401, 404, 410, 422)),
        *((status, Verdict.RETRIED, "120") for status in (429, 500, 502, 503)),
    ],
)
async def test_status_decides_and_only_a_retry_keeps_the_receivers_retry_after(
    router: respx.Router, status: int, verdict: Verdict, retry_after: str
) -> None:
    route = router.route().respond(status, headers={"Retry-After": "120", "Location": "https://elsewhere.test/"})

    report = await make_courier(router).attempt(make_delivery())

    assert report == Report(verdict, str(status), retry_after)
    assert route.call_count == 1  # a redirect is not followed


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("late"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("not HTTP"),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_receiver_that_does_not_answer_is_retried(router: respx.Router, error: Exception) -> None:
    router.route().mock(side_effect=error)

    report = await make_courier(router).attempt(make_delivery())

    assert report == Report(Verdict.RETRIED, type(error).__name__)


async def test_attempt_ends_at_its_time_limit(router: respx.Router) -> None:
    async def answer_late(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    router.route().mock(side_effect=answer_late)

    report = await make_courier(router, timeout_s=0.01).attempt(make_delivery())

    assert report == Report(Verdict.RETRIED, "TimeoutError")


@pytest.mark.parametrize(
    ("resolver", "report"),
    [
        (resolve_inside, Report(Verdict.REFUSED, "UrlRefused")),
        (resolve_nothing, Report(Verdict.RETRIED, "HostUnknown")),
    ],
)
async def test_host_without_a_public_address_is_not_asked(
    router: respx.Router, resolver: Callable[[str, int], Awaitable[list[str]]], report: Report
) -> None:
    assert await make_courier(router, resolver).attempt(make_delivery()) == report
    assert not router.calls


async def test_unreadable_record_is_retried_by_a_later_release(router: respx.Router) -> None:
    delivery = make_delivery()
    unreadable = Delivery(delivery.job_id, delivery.receiver, 1, 0, {**delivery.record, b"status": b"PAUSED"})

    assert await make_courier(router).attempt(unreadable) == Report(Verdict.RETRIED, "UnreadableRecord")
    assert not router.calls
