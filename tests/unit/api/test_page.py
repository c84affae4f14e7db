"""The page at `/` and its files: who gets them, their headers, and that they name no other host."""

import os
import re
import subprocess
from importlib import resources
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from fakeredis.aioredis import FakeRedis

from image_analysis_common.settings import BUNDLED_MODEL
from support.fakes import MakeClient

pytestmark = pytest.mark.anyio

PAGE = Path(str(resources.files("image_analysis_api").joinpath("page")))
FILES = sorted(path.name for path in PAGE.iterdir())
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
MOST_LINES = 250


@pytest.mark.parametrize("accept", [BROWSER, "*/*", "text/*", "application/json;q=0.5, text/html", ""])
async def test_browsers_and_plain_clients_get_the_page(client: httpx.AsyncClient, accept: str) -> None:
    answer = await client.get("/", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert answer.content == (PAGE / "index.html").read_bytes()


@pytest.mark.parametrize("is_on", [True, False])
@pytest.mark.parametrize("accept", ["application/json", "application/json, text/html;q=0.9", "application/*"])
async def test_clients_that_ask_for_json_get_links_that_work(make_client: MakeClient, is_on: bool, accept: str) -> None:
    client = await make_client(playground=is_on, api_title="Pets", api_version="1.2")

    answer = await client.get("/", headers={"Accept": accept})

    document = answer.json()
    links = document.pop("links")
    assert document == {"name": "Pets", "version": "1.2", "api_key_required": False}
    assert answer.headers["vary"] == "Accept"
    for name, link in links.items():
        asked = await client.get(f"/{link}")
        assert asked.status_code == {"analyze_image": 405, "analyze_images": 405, "ready": 503}.get(name, 200), name


async def test_document_says_whether_a_key_is_required(make_client: MakeClient) -> None:
    client = await make_client(api_keys=f"alice:{'0' * 64}")

    answer = await client.get("/", headers={"Accept": "application/json"})

    assert answer.json()["api_key_required"] is True


async def test_page_that_is_switched_off_leaves_links_alone(make_client: MakeClient) -> None:
    client = await make_client(playground=False)

    start, file = await client.get("/", headers={"Accept": BROWSER}), await client.get("/page/main.js")

    assert start.headers["content-type"] == "application/json"
    assert (file.status_code, file.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
async def test_files_are_kept_by_browsers_and_asked_for_by_their_etag(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    head = await client.head(path)
    again = await client.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    changed = await client.get(path, headers={"If-None-Match": '"other"'})

    assert [answer.status_code, head.status_code, again.status_code, changed.status_code] == [200, 200, 304, 200]
    assert again.content == b""
    for found in (answer, head, again):
        assert found.headers["cache-control"] == "no-cache"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["etag"] == answer.headers["etag"]
    assert head.headers["content-length"] == str(len(answer.content))


async def test_policy_allows_no_inline_script_or_style_and_no_other_host(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/")).headers["content-security-policy"]

    rules = {name: values.split() for name, _, values in (rule.partition(" ") for rule in policy.split("; "))}
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == ["'self'"]
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["img-src"] == ["'self'", "blob:", "data:"]
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2E%2E/app.py", "__init__.py", ""])
async def test_there_is_no_other_file(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/page/{name}")).status_code == 404


async def test_page_counts_against_no_limit_and_asks_nothing_of_redis(
    make_client: MakeClient, redis: FakeRedis
) -> None:
    client = await make_client(rate_limit_max_requests=1)

    answers = [await client.get(path) for path in ("/", "/page/main.js") * 3]

    assert [answer.status_code for answer in answers] == [200] * 6
    assert "ratelimit" not in answers[-1].headers
    assert await redis.keys() == []


async def test_page_is_not_in_the_openapi_document(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert not [path for path in paths if path == "/" or path.startswith("/page")]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".jpg")])
def test_file_is_short_and_every_link_in_it_is_relative(name: str) -> None:
    text = (PAGE / name).read_text()

    assert len(text.splitlines()) <= MOST_LINES
    assert not re.findall(r'(?:src|href|action)="(?:/|https?:)', text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\bstyle=|\bon\w+=\"", text)
    assert not re.findall(r'(?:from|import) "(?!\./)(?!node:)[^"]', text)


def test_every_file_that_the_page_names_is_there() -> None:
    text = (PAGE / "index.html").read_text()
    named = set(re.findall(r'"page/([^"]+)"', text))
    for script in PAGE.glob("*.js"):
        named |= set(re.findall(r'from "\./([^"]+)"', script.read_text()))

    assert named == set(FILES) - {"index.html"}


def test_wheel_holds_every_file_of_the_page(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [
        os.environ.get("UV", "uv"),
        "build",
        "--offline",
        "--package",
        "image-analysis-api",
        "--wheel",
        "--out-dir",
        str(tmp_path),
    ]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)

    (wheel,) = tmp_path.glob("*.whl")
    built = [Path(name) for name in ZipFile(wheel).namelist()]

    assert {path.name for path in built if path.parent.name == "page" and path.suffix} == set(FILES)


def test_only_the_bundled_model_is_called_a_demo_model() -> None:
    assert re.findall(r'DEMO_MODEL = "(.*)"', (PAGE / "models.js").read_text()) == [BUNDLED_MODEL]
