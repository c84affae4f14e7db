"""Webhooks for clients: which URLs are accepted, which secret signs, and when a delivery is retried."""

import base64
import re
from typing import Any

import httpx
import pytest
from fakeredis.aioredis import FakeRedis
from standardwebhooks import Webhook, WebhookVerificationError

from image_analysis_api import webhook_secrets
from image_analysis_api.deliverer.backoff import choose_delay_s
from image_analysis_api.deliverer.signing import sign
from image_analysis_api.outbound.client import Destinations
from image_analysis_api.outbound.urls import URL_LENGTH_MAX, WebUrl
from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES
from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_api.webhook_secrets import WebhookSecret
from image_analysis_common import keys
from image_analysis_common.startup import StartupError
from support.announcements import announce, cache_result, make_result, serve
from support.fakes import MakeClient
from support.receivers import OTHER_SECRET, SECRET
from support.replies import read_record
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

URL = "https://receiver.example/hooks?token=t0ps3cret"
IMAGE = make_png(1)
WAYS: dict[str, dict[str, Any]] = {
    "JSON": {"json": base64_body(IMAGE) | {"webhook_url": URL}},
    "form": {"files": {"file": IMAGE}, "data": {"webhook_url": URL}},
    "query": {"content": IMAGE, "params": {"webhook_url": URL}, "headers": {"Content-Type": "image/png"}},
}


@pytest.fixture
async def client(make_client: MakeClient) -> httpx.AsyncClient:
    return await make_client(webhook_secret=(SECRET,))


async def submit(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post("/analyze-image", json=base64_body(IMAGE) | {"webhook_url": url})


@pytest.mark.parametrize("way", WAYS)
async def test_webhook_is_kept_with_the_job_and_not_shown(
    client: httpx.AsyncClient, redis: FakeRedis, way: str
) -> None:
    answer = await client.post("/analyze-image", **WAYS[way])

    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    assert read_record(await redis.hgetall(keys.job(job_id))).webhook_url == URL
    assert "receiver" not in (await client.get(f"/analysis-status/{job_id}")).text
    assert not await redis.exists(keys.DELIVERIES)


async def test_known_result_is_delivered_too(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await announce(redis)
    await cache_result(redis, IMAGE, make_result())

    answer = await submit(client, URL)

    assert answer.status_code == 200
    assert await redis.zrange(keys.DELIVERIES, 0, -1) == [answer.json()["job_id"].encode()]


REFUSALS = {
    "ftp://receiver.example/": "webhook_url is refused. The URL must begin with http:// or https://.",
    "receiver": "webhook_url is refused. The URL must begin with http:// or https://.",
    "https://user:word@receiver.example/": "webhook_url is refused. The URL must not contain a user name or password.",
    "https://receiver.example:22/": "webhook_url is refused. The URL's port must be one of these: 80, 443.",
    "http://127.0.0.1/": "webhook_url is refused. The URL's host has no public address to connect to: check the name.",
    "http://[::ffff:10.0.0.1]/": "webhook_url is refused. The URL's host has no public address",
    "http://169.254.169.254/": "webhook_url is refused. The URL's host has no public address",
    "http://0x7f.1/": "webhook_url is refused. The URL's host must be a name",
}


@pytest.mark.parametrize("url", REFUSALS)
async def test_url_to_a_forbidden_address_is_refused(client: httpx.AsyncClient, redis: FakeRedis, url: str) -> None:
    answer = await submit(client, url)

    assert (answer.status_code, answer.json()["code"]) == (400, "url_refused")
    assert answer.json()["detail"].startswith(REFUSALS[url])
    assert await redis.keys("analysis_job:*") == []


@pytest.mark.parametrize("url", ["", "https://receiver.example/".ljust(URL_LENGTH_MAX + 1, "a"), 7])
async def test_value_that_is_no_url_is_an_invalid_option(client: httpx.AsyncClient, url: str) -> None:
    answer = await submit(client, url)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["detail"] == "webhook_url must be a URL of 1 to 2048 characters."


async def test_addresses_that_the_operator_allows_are_allowed_for_webhooks(make_client: MakeClient) -> None:
    client = await make_client(
        webhook_secret=(SECRET,), fetch_allowed_networks="10.0.0.0/8", fetch_allowed_hosts="Receiver.example."
    )

    urls = ("http://10.0.0.1:9000/", "http://receiver.example:9000/", "http://other.example:9000/", "http://127.0.0.1/")

    # The addresses of the third one's name are checked at each delivery.
    assert [(await submit(client, url)).status_code for url in urls] == [202, 202, 202, 400]


def test_hosts_are_allowed_however_they_are_written() -> None:
    destinations = Destinations.of(ApiSettings(fetch_allowed_hosts="Site.test.,other.test"))

    assert destinations.hosts == {"site.test", "other.test"}
    destinations.check_form(WebUrl.parse("http://SITE.test:8080/"))


async def test_without_a_secret_only_webhooks_are_refused(make_client: MakeClient) -> None:
    client = await make_client()

    refused, taken = await submit(client, URL), await client.post("/analyze-image", json=base64_body(IMAGE))

    assert (refused.status_code, refused.json()["code"]) == (403, "webhooks_disabled")
    assert refused.json()["detail"] == "This service sends no webhooks: its operator has to set WEBHOOK_SECRET."
    assert taken.status_code == 202


async def test_pending_deliveries_are_limited(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await redis.zadd(keys.DELIVERIES, {str(number): 1 for number in range(MAX_DELIVERIES)})

    refused, taken = await submit(client, URL), await client.post("/analyze-image", json=base64_body(IMAGE))

    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_deliveries")
    assert refused.headers["retry-after"] == "60"
    assert taken.status_code == 202


async def test_same_request_with_another_webhook_is_another_request(
    client: httpx.AsyncClient, redis: FakeRedis
) -> None:
    await serve(redis)
    key = {"Idempotency-Key": "k"}
    bodies = [base64_body(IMAGE) | {"webhook_url": url} for url in (URL, URL, URL + "2")]

    answers = [await client.post("/analyze-image", json=body, headers=key) for body in bodies]

    assert [answer.status_code for answer in answers] == [202, 202, 422]
    assert answers[0].json() == answers[1].json()


async def test_document_describes_what_a_receiver_gets(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    call = document["webhooks"]["job-ended"]["post"]
    assert call["requestBody"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/AnalysisStatus"}}
    }
    assert {parameter["name"] for parameter in call["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert set(call["responses"]) == {"204", "4XX", "5XX"}
    assert "webhook_url" in str(document["paths"]["/analyze-image"]["post"]["parameters"])


def test_message_is_signed_with_every_secret_for_its_owner_alone() -> None:
    body = '{"status": "COMPLETED"}'

    headers = sign([SECRET, OTHER_SECRET], "alice", "msg_1", body)

    assert re.fullmatch(r"v1,\S{44} v1,\S{44}", headers["webhook-signature"])
    for secret in (SECRET, OTHER_SECRET):
        assert Webhook(str(secret.of("alice"))).verify(body, headers) == {"status": "COMPLETED"}
    for stranger in (SECRET, SECRET.of("bob"), SECRET.of(None)):
        with pytest.raises(WebhookVerificationError):
            Webhook(str(stranger)).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(str(SECRET.of("alice"))).verify(body.replace("COMPLETED", "FAILED"), headers)


def test_secrets_are_read_as_the_standard_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET}, {OTHER_SECRET}")

    settings = [kind.from_environment() for kind in (ApiSettings, DelivererSettings)]

    assert [each.webhook_secret for each in settings] == [(SECRET, OTHER_SECRET)] * 2
    assert "MDAw" not in repr(settings)
    assert b"0" not in repr(settings[0].webhook_secret).encode()


@pytest.mark.parametrize(
    "entry",
    [
        "t0ps3cret",
        base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode().rstrip("="),
        "whsec_t0ps3cret!",
        f"{SECRET},t0ps3cret",
    ],
)
def test_malformed_secret_stops_the_start_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", entry)

    with pytest.raises(StartupError, match=r"WEBHOOK_SECRET: .*just webhook-secret --new") as caught:
        DelivererSettings.from_environment()

    assert "t0ps3cret" not in str(caught.value)
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize(("arguments", "owner"), [([], None), (["alice"], "alice")])
def test_secret_for_a_client_is_printed_bare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], owner: str | None
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET},{OTHER_SECRET}")
    monkeypatch.setattr("sys.argv", ["webhook_secrets", *arguments])

    webhook_secrets.main()

    assert capsys.readouterr().out == f"{SECRET.of(owner)}\n"


def test_new_secret_is_accepted_by_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["webhook_secrets", "--new"])

    webhook_secrets.main()

    assert len(WebhookSecret.parse(capsys.readouterr().out.strip()).key) == 32


@pytest.mark.parametrize(
    ("arguments", "secret", "said"),
    [
        ([], "", "WEBHOOK_SECRET is not set"),
        ([], "t0ps3cret", "WEBHOOK_SECRET: each entry is whsec_"),
        (["a b"], str(SECRET), "Give the name of one owner"),
        (["alice", "bob"], str(SECRET), "Give the name of one owner"),
    ],
)
def test_secret_that_cannot_be_printed_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], secret: str, said: str
) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    monkeypatch.setattr("sys.argv", ["webhook_secrets", *arguments])

    with pytest.raises(SystemExit, match=said) as caught:
        webhook_secrets.main()

    assert "t0ps3cret" not in str(caught.value)


def test_attempts_back_off_to_one_an_hour() -> None:
    delays = [choose_delay_s(attempts) for attempts in range(1, 40)]

    expected = [min(4.0**n, 3600) for n in range(39)]
    assert all(0.8 * wait <= delay <= 1.2 * wait for delay, wait in zip(delays, expected, strict=True))
    assert len(set(delays)) > 30


@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [
        ("120", 120),
        ("0", 1),
        ("999999999999", 3600),
        ("²", 1),
        ("-5", 1),
        ("soon", 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1),
        ("Wed, 21 Oct 2065 07:28:00 GMT", 3600),
        ("Wed, 21 Oct 2065 07:28:00", 1),
        ("9" * 5000, 1),
        ("Wed, 21 Jan 99999999999999999999 07:28:00 GMT", 1),
        ("Wed, 21 Jan 2065 07:28:00 +99999999999999999999", 1),
    ],
)
def test_retry_after_of_a_receiver_is_respected_up_to_an_hour(retry_after: str, wait_s: float) -> None:
    least_s = 0.8 if wait_s == 1 else wait_s
    assert all(least_s <= choose_delay_s(1, retry_after) <= 1.2 * wait_s for _ in range(100))


async def test_each_job_of_a_batch_has_a_separate_webhook(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    images = [base64_body(image) for image in (IMAGE, b"no image", make_png(2))]

    answer = await client.post("/analyze-images", json={"images": images, "webhook_url": URL})

    assert answer.status_code == 202, answer.text
    first, refused, last = [job["job_id"] for job in answer.json()["jobs"]]
    records = [read_record(await redis.hgetall(keys.job(job_id))) for job_id in (first, refused, last)]
    assert [record.webhook_url for record in records] == [URL] * 3
    assert await redis.zrange(keys.DELIVERIES, 0, -1) == [refused.encode()]


async def test_images_of_a_batch_whose_webhooks_are_too_many_fail(client: httpx.AsyncClient, redis: FakeRedis) -> None:
    await redis.zadd(keys.DELIVERIES, {str(number): 1 for number in range(MAX_DELIVERIES - 1)})
    images = [base64_body(image) for image in (IMAGE, make_png(2))]

    answer = await client.post("/analyze-images", json={"images": images, "webhook_url": URL})

    first, second = answer.json()["jobs"]
    assert (answer.status_code, first["status"], second["status"]) == (202, "PENDING", "FAILED")
    assert second["error"]["code"] == "too_many_deliveries"


async def test_refused_batch_has_no_webhooks(make_client: MakeClient, redis: FakeRedis) -> None:
    client = await make_client(webhook_secret=(SECRET,), max_queue_depth=1)
    await client.post("/analyze-image", json=base64_body(IMAGE))
    images = [base64_body(image) for image in (b"no image", make_png(2))]

    full = await client.post("/analyze-images", json={"images": images, "webhook_url": URL})
    refused = await client.post("/analyze-images", json={"images": images, "webhook_url": "http://127.0.0.1/"})

    assert (full.status_code, full.json()["code"]) == (503, "queue_full")
    assert (refused.status_code, refused.json()["code"]) == (400, "url_refused")
    assert not await redis.keys("analysis_deliver*")
