"""FETCH_USER_AGENT: what the hosts of images see."""

import httpx
import pytest
import respx

from image_analysis_api.services import Services
from image_analysis_api.settings import ApiSettings
from image_analysis_common.startup import StartupError

NAME = "cats/1.0 (+https://cats.example/bot)"
FIRST, SECOND = "http://93.184.216.34/", "http://93.184.216.35/"


@pytest.mark.anyio
@pytest.mark.parametrize(("setting", "sent"), [(NAME, NAME), ("", "image-analysis")])
async def test_every_hop_of_a_fetch_sends_it(
    monkeypatch: pytest.MonkeyPatch, respx_mock: respx.MockRouter, setting: str, sent: str
) -> None:
    monkeypatch.setenv("FETCH_USER_AGENT", setting)
    services = Services.build(ApiSettings.from_environment())
    respx_mock.get(FIRST).mock(httpx.Response(302, headers={"location": SECOND}))
    respx_mock.get(SECOND).mock(httpx.Response(200, content=b"image"))

    assert await services.fetcher.fetch(FIRST, "198.51.100.7") == b"image"

    assert [call.request.headers["user-agent"] for call in respx_mock.calls] == [sent, sent]
    await services.aclose()


@pytest.mark.parametrize("name", ["a\r\nHost: b", "größe", "x" * 257, "a\tb"])
def test_one_that_no_header_can_hold_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("FETCH_USER_AGENT", name)

    with pytest.raises(StartupError, match=r"FETCH_USER_AGENT: .*is not a User-Agent: write printable ASCII"):
        ApiSettings.from_environment()
