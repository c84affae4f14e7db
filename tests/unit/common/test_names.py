"""Names and settings that both services must agree on."""

import pytest

from image_analysis_common.errors import StartupError
from image_analysis_common.models import ModelRef
from image_analysis_common.settings import SharedSettings
from image_analysis_common.tasks import model_name, queue_name
from image_analysis_common.versions import check_redis_version


@pytest.mark.parametrize(
    ("model_id", "name", "queue"),
    [
        ("vit-tiny-cifar10", "vit-tiny-cifar10", "analysis-vit-tiny-cifar10"),
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224", "analysis-google--vit-base-patch16-224"),
        ("/srv/secret/pets", "pets", "analysis-pets"),
        ("./models/pets/", "pets", "analysis-pets"),
        ("~/models/my pets", "my pets", "analysis-my--pets"),
    ],
)
def test_model_is_named_without_its_path(model_id: str, name: str, queue: str) -> None:
    assert (model_name(model_id), queue_name(model_id)) == (name, queue)


def test_results_of_two_revisions_never_share_a_field() -> None:
    first = ModelRef(id="m", revision="1", preprocessing="1")

    fields = {first.cache_field} | {
        first.model_copy(update={part: "2"}).cache_field for part in ("id", "revision", "preprocessing")
    }

    assert len(fields) == 4


@pytest.mark.parametrize(
    ("variables", "dsn"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"REDIS_HOST": "db.internal", "REDIS_PORT": "6380"}, "redis://db.internal:6380/0"),
        ({"REDIS_URL": "rediss://:pw@db/1", "REDIS_HOST": "elsewhere"}, "rediss://:pw@db/1"),
        ({"REDIS_URL": "", "REDIS_HOST": ""}, "redis://localhost:6379/0"),
    ],
)
def test_redis_url_wins_over_host_and_port(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], dsn: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    settings = SharedSettings.from_environment()

    assert settings.redis_dsn == dsn
    assert "pw" not in repr(settings)


def test_bad_settings_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "many")
    monkeypatch.setenv("CACHE_TTL_SECONDS", "-1")

    with pytest.raises(StartupError) as caught:
        SharedSettings.from_environment()

    assert "REDIS_PORT: " in str(caught.value)
    assert "CACHE_TTL_SECONDS: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["6.2", "6.2.14", "7.0.15", "8.0.0", "255.255.255"])
def test_recent_redis_is_accepted(version: str) -> None:
    check_redis_version(version)


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8"])
def test_old_redis_is_refused(version: str) -> None:
    with pytest.raises(StartupError, match=r"needs Redis 6\.2 or newer"):
        check_redis_version(version)
