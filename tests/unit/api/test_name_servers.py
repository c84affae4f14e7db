"""FETCH_DNS_SERVERS: c-ares accepts every name server that the settings accept."""

import pycares
import pytest

from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_common.startup import StartupError


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("10.0.0.53", ["10.0.0.53:53"]),
        ("10.0.0.53:5353, 127.0.0.1", ["10.0.0.53:5353", "127.0.0.1:53"]),
        ("fd00::53", ["[fd00::53]:53"]),
        ("[fd00::53],[fd00::54]:5353", ["[fd00::53]:53", "[fd00::54]:5353"]),
    ],
)
def test_name_servers_are_addresses_with_or_without_a_port(
    monkeypatch: pytest.MonkeyPatch, text: str, servers: list[str]
) -> None:
    monkeypatch.setenv("FETCH_DNS_SERVERS", text)

    settings = ApiSettings.from_environment()

    assert DelivererSettings.from_environment().fetch_dns_servers == settings.fetch_dns_servers
    if servers:
        channel = pycares.Channel(servers=settings.fetch_dns_servers, sock_state_cb=lambda *_: None)
        assert channel.servers == servers
        channel.close()


@pytest.mark.parametrize(
    "text",
    ["dns.test", "10.0.0", "10.0.0.53:0", "10.0.0.53:65536", "10.0.0.53:dns", "[fd00::53", "::1:99999x", "fd00::g"],
)
def test_name_server_of_another_form_stops_the_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FETCH_DNS_SERVERS", f"127.0.0.1,{text}")

    with pytest.raises(StartupError, match=r"FETCH_DNS_SERVERS: .*write it like 10\.0\.0\.53"):
        ApiSettings.from_environment()
