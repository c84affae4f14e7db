"""Fixtures for all suites."""

from collections.abc import Iterator

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from PIL import Image

from support.waiting import PATIENCE_S


def pytest_configure() -> None:
    """Let the tests' calls wait longer than the 5 s of httpx, which a busy machine can exceed."""
    DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = PATIENCE_S
    DEFAULT_TIMEOUT_CONFIG.write = DEFAULT_TIMEOUT_CONFIG.pool = PATIENCE_S


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def pillow_limit() -> Iterator[None]:
    """Undo the limit of an app in this process: it holds for the whole process, and the next file needs its own."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit
