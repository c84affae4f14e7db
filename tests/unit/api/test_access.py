"""API keys: which are accepted, how wrong keys are counted, and who owns a job."""

import json
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fakeredis import FakeServer
from fakeredis.aioredis import FakeRedis

from image_analysis_api import api_keys
from image_analysis_api.settings import ApiSettings
from image_analysis_common import keys
from image_analysis_common.logs import configure_logs
from image_analysis_common.models import AnalysisResult, CachedResult, ModelAnnouncement, ModelRef, Prediction
from image_analysis_common.startup import StartupError
from support.fakes import MakeApp, MakeClient
from support.samples import base64_body, make_png

pytestmark = pytest.mark.anyio

ALICE, ALICES_NEXT, BOB = "alices-key", "alices-next-key", "bobs-key"
ENTRIES = ",".join(
    f"{owner}:{sha256(key.encode()).hexdigest()}"
    for owner, key in (("alice", ALICE), ("bob", BOB), ("alice", ALICES_NEXT))
)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def guarded(make_client: MakeClient) -> httpx.AsyncClient:
    return await make_client(api_keys=ENTRIES, rate_limit_max_requests=3)


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ALICE),
        bearer(ALICES_NEXT),
        {"Authorization": f"bearer  {ALICE} "},
        {"X-API-Key": ALICE},
        {"Authorization": "Basic Z2F0ZTp3YXk=", "X-API-Key": ALICE},
    ],
)
async def test_right_key_is_accepted_and_counted_for_its_owner(
    guarded: httpx.AsyncClient, redis: FakeRedis, headers: dict[str, str]
) -> None:
    answer = await guarded.post("/analyze-image", json=base64_body(make_png()), headers=headers)

    assert (answer.status_code, answer.headers["ratelimit"]) == (202, '"default";r=2;t=60')
    assert await redis.keys("rate_limit:*") == [b"rate_limit:key:alice"]
    assert await redis.hget(keys.job(answer.json()["job_id"]), "owner") == b"alice"


MISSING: list[dict[str, str]] = [{}, {"X-API-Key": ""}, bearer(""), {"Authorization": f"Basic {ALICE}"}]
DIGEST = sha256(ALICE.encode()).hexdigest()
WRONG = [
    *(bearer(key) for key in (ALICE[:-1], ALICE + "x", ALICE.upper(), "alice", DIGEST, f"alice:{DIGEST}", "\xe9" * 99)),
    {"X-API-Key": "x" * 10_000},
    bearer("wrong") | {"X-API-Key": ALICE},
]


@pytest.mark.parametrize("headers", [*MISSING, *WRONG])
async def test_missing_or_wrong_key_is_401_before_the_body_is_read(
    guarded: httpx.AsyncClient, redis: FakeRedis, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    json_headers = [*raw, (b"Content-Type", b"application/json")]

    post = await guarded.post("/analyze-image", content=unread(), headers=json_headers)
    get = await guarded.get(f"/analysis-status/{uuid4()}", headers=raw)

    for answer in (post, get):
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        error = "" if headers in MISSING else ', error="invalid_token"'
        assert answer.headers["www-authenticate"] == f'Bearer realm="image-analysis"{error}'
    assert await redis.keys() == [b"rate_limit:198.51.100.7"]


async def test_guessing_keys_ends_with_429_and_locks_no_other_client_out(guarded: httpx.AsyncClient) -> None:
    job = f"/analysis-status/{uuid4()}"

    tries = [await guarded.get(job, headers=bearer(f"guess-{n}")) for n in range(5)]
    owner = await guarded.post("/analyze-image", json=base64_body(make_png()), headers=bearer(ALICE))

    assert [answer.status_code for answer in tries] == [401, 401, 401, 429, 429]
    assert int(tries[-1].headers["retry-after"]) >= 59
    assert owner.status_code == 202


async def test_each_owner_has_one_quota_for_all_its_keys(guarded: httpx.AsyncClient) -> None:
    spent = [ALICE, ALICES_NEXT, ALICE, ALICES_NEXT, BOB]

    codes = [(await guarded.post("/analyze-image", headers=bearer(key))).status_code for key in spent]

    assert codes == [400, 400, 400, 429, 400]


async def test_job_is_visible_to_its_owner_only(guarded: httpx.AsyncClient, make_client: MakeClient) -> None:
    image = base64_body(make_png())
    leading, following = [
        (await guarded.post("/analyze-image", json=image, headers=bearer(key))).headers["location"]
        for key in (ALICE, BOB)
    ]
    keyless = await make_client()
    unowned = (await keyless.post("/analyze-image", json=image)).headers["location"]

    async def see(client: httpx.AsyncClient, headers: dict[str, str]) -> list[int]:
        return [(await client.get(job, headers=headers)).status_code for job in (leading, following, unowned)]

    assert await see(guarded, bearer(ALICES_NEXT)) == [200, 404, 404]
    assert await see(guarded, bearer(BOB)) == [404, 200, 404]
    assert await see(keyless, bearer(ALICE)) == [404, 404, 200]


async def test_jobs_of_others_look_like_unknown_jobs(guarded: httpx.AsyncClient) -> None:
    location = (await guarded.post("/analyze-image", json=base64_body(make_png()), headers=bearer(ALICE))).headers[
        "location"
    ]

    foreign, unknown = [
        (await guarded.get(path, headers={**bearer(BOB), "X-Request-ID": "same"})).json()
        for path in (location, f"/analysis-status/{uuid4()}")
    ]

    assert foreign == unknown


async def test_cached_answer_belongs_to_the_submitter(guarded: httpx.AsyncClient, redis: FakeRedis) -> None:
    image, model = make_png(), ModelRef(id="vit-tiny-cifar10", revision="r1", preprocessing="1")
    best = Prediction(label="cat", confidence=0.9)
    result = AnalysisResult(label="cat", confidence=0.9, predictions=[best], model=model)
    announcement = ModelAnnouncement(
        model=model, labels=["cat"], accuracy=None, device="cpu", dtype="float32", max_batch_size=1, inference_ms=1
    )
    cached = CachedResult(result=result, processing_time_ms=1)
    await redis.set(keys.announcement(model.id), announcement.model_dump_json())
    await redis.hset(keys.result(sha256(image).hexdigest()), model.cache_field, cached.model_dump_json())

    answer = await guarded.post("/analyze-image", json=base64_body(image), headers=bearer(BOB))
    path = f"/analysis-status/{answer.json()['job_id']}"

    assert answer.status_code == 200
    assert (await guarded.get(path, headers=bearer(BOB))).json() == answer.json()
    assert (await guarded.get(path, headers=bearer(ALICE))).status_code == 404


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json"])
async def test_health_and_documentation_need_no_key(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code in (200, 503)


async def test_wrong_key_is_refused_even_in_an_outage(guarded: httpx.AsyncClient, redis_server: FakeServer) -> None:
    redis_server.connected = False

    answers = [await guarded.post("/analyze-image", headers=bearer(key)) for key in ("wrong", ALICE)]

    assert [answer.status_code for answer in answers] == [503, 503]


async def test_log_names_the_owner_and_never_the_key(
    guarded: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(ApiSettings(log_format="json"), "api")

    await guarded.post("/analyze-image", json=base64_body(make_png()), headers=bearer(ALICE))
    await guarded.post("/analyze-image", headers={"X-API-Key": "wrong-key"})

    output = capsys.readouterr().out
    assert [json.loads(line).get("owner") for line in output.splitlines()] == ["alice", "alice", None]
    assert ALICE not in output
    assert "wrong-key" not in output


@pytest.mark.parametrize(
    "entries", ["alice", "alice:", f":{DIGEST}", f"al ice:{DIGEST}", f"alice:{DIGEST[:-1]}", f"{ENTRIES};x", ALICE * 9]
)
def test_malformed_entry_stops_the_start_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch, entries: str) -> None:
    monkeypatch.setenv("API_KEYS", entries)

    with pytest.raises(StartupError, match=r"^API_KEYS: .* make one with `just key NAME`\.$") as error:
        ApiSettings.from_environment()

    assert entries not in str(error.value)


def test_new_key_is_accepted_with_its_entry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["api_keys", "carol.staging"])
    made = []
    for _ in range(2):
        api_keys.main()
        key, entry = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        made.append(key)
        assert api_keys.find_owner([api_keys.ApiKey.parse(entry)], key) == "carol.staging"

    assert made[0] != made[1]
    assert all(len(key) == 43 for key in made)  # 256 bits in base64


@pytest.mark.parametrize("arguments", [[], ["two", "names"], ["a:b"], ["a,b"], [""], ["ä"]])
def test_key_without_a_plain_name_is_not_made(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["api_keys", *arguments])

    with pytest.raises(SystemExit, match="just key alice"):
        api_keys.main()


async def test_document_requires_a_key_if_keys_are_set(make_app: MakeApp) -> None:
    document: dict[str, Any] = make_app(api_keys=ENTRIES).openapi()
    operations = {
        path: operation for path, operations in document["paths"].items() for operation in operations.values()
    }

    assert document["components"]["securitySchemes"].keys() == {"bearer", "api_key"}
    for path, operation in operations.items():
        needs_key = path.startswith(("/analy", "/classifiers", "/models"))
        assert operation.get("security") == ([{"bearer": []}, {"api_key": []}] if needs_key else None)
        assert ("401" in operation["responses"]) == needs_key
    assert "429" in operations["/analysis-status/{job_id}"]["responses"]
    refusal = operations["/analyze-image"]["responses"]["401"]
    assert "WWW-Authenticate" in refusal["headers"]
    assert refusal["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


async def test_document_requires_no_key_if_no_keys_are_set(make_app: MakeApp) -> None:
    document = make_app().openapi()

    assert "securitySchemes" not in document["components"]
    assert "401" not in json.dumps(document["paths"])
