"""The service, a client of it, and the command line, which finds it by its address in the environment."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import respx

from image_analysis_client import Client
from image_analysis_client.cli import main
from support.fake_service import URL, FakeService, Run


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    monkeypatch.setenv("IMAGE_ANALYSIS_URL", URL)
    service = FakeService()
    with respx.mock(assert_all_called=False) as router:
        router.route(host="service.test").mock(side_effect=service)
        yield service


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(URL, transport=httpx.MockTransport(service)) as client:
        yield client


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(b"image")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return run
