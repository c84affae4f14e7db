"""The page at `/` as HTTP: who gets it, with which headers, and what is there where it is switched off."""

import re

import httpx
import pytest

from image_analysis_api.routes.page import read_files
from support.fakes import MakeClient

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_browser_gets_the_page_under_a_strict_policy(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers=BROWSER)

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-inline" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", answer.text)


async def test_client_that_prefers_json_gets_links(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"Accept": "application/json"})

    assert answer.json()["links"]["analyze_image"] == "analyze-image"
    assert answer.json()["api_key_required"] is False


@pytest.mark.parametrize("name", sorted(read_files()))
async def test_every_file_of_the_page_is_served_and_revalidated(client: httpx.AsyncClient, name: str) -> None:
    first = await client.get(f"/page/{name}")
    again = await client.get(f"/page/{name}", headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert (await client.head(f"/page/{name}")).status_code == 200


async def test_every_file_that_the_page_names_exists_and_no_link_leaves_the_host(client: httpx.AsyncClient) -> None:
    text = (await client.get("/", headers=BROWSER)).text
    links = re.findall(r'(?:src|href)="([^"#]+)"', text)

    assert links
    assert not [link for link in links if link.startswith(("/", "http:", "https:", "//"))]
    for link in links:
        assert (await client.get(f"/{link}")).status_code == 200, link


async def test_switched_off_page_leaves_the_links(make_client: MakeClient) -> None:
    client = await make_client(playground=False)

    assert (await client.get("/", headers=BROWSER)).headers["Content-Type"] == "application/json"
    assert (await client.get("/page/main.js")).json()["code"] == "not_found"


async def test_unknown_file_of_the_page_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.get("/page/..%2Fsettings.py")).status_code == 404
    assert (await client.get("/page/none.js")).status_code == 404
