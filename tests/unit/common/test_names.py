"""Names and settings that both services must agree on."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from image_analysis_common.models import ModelRef
from image_analysis_common.settings import BUNDLED_MODEL, Sentinels, SharedSettings
from image_analysis_common.startup import StartupError
from image_analysis_common.tasks import model_name, queue_name
from image_analysis_common.versions import check_redis_version


@pytest.mark.parametrize(
    ("model_id", "name", "queue"),
    [
        ("vit-tiny-cifar10", "vit-tiny-cifar10", "analysis-vit-tiny-cifar10"),
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224", "analysis-google--vit-base-patch16-224"),
        ("/srv/secret/pets", "pets", "analysis-pets"),
        ("./models/pets/", "pets", "analysis-pets"),
        ("/srv/pets/.", "pets", "analysis-pets"),
        ("~/models/my pets", "my pets", "analysis-my~20pets"),
        ("/srv/m+1", "m+1", "analysis-m~2b1"),
        ("/srv/a--b", "a--b", "analysis-a~2d~2db"),
        ("/srv/kätzchen", "kätzchen", "analysis-k~c3~a4tzchen"),
    ],
)
def test_model_is_named_without_its_path(model_id: str, name: str, queue: str) -> None:
    assert (model_name(model_id), queue_name(name)) == (name, queue)


NAMES = st.text(alphabet="ab-/+~. é@#", min_size=1, max_size=6)


@given(NAMES, NAMES)
@example("m+1", "m 1")
@example("a/b", "a--b")
@example("a-/b", "a/-b")
@example("a/b", "a~2fb")
def test_two_models_never_share_a_queue(first: str, second: str) -> None:
    queues = queue_name(first), queue_name(second)

    assert (queues[0] == queues[1]) == (first == second)
    assert "/" not in queues[0]


@given(NAMES, NAMES, st.sampled_from(["1", "2"]), st.sampled_from(["1", "2"]))
def test_two_models_never_share_a_cache_field(first: str, second: str, one: str, other: str) -> None:
    refs = [
        ModelRef(id=name, revision=revision, preprocessing="1") for name, revision in ((first, one), (second, other))
    ]

    assert (refs[0].cache_field == refs[1].cache_field) == (refs[0] == refs[1])


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"MODEL_ID": "/srv/a/pets"}, "pets"),
        ({"MODEL_ID": "/srv/a/pets", "MODEL_NAME": "acme/pets v2"}, "acme/pets v2"),
        ({"MODEL_ID": "google/vit-base-patch16-224", "MODEL_NAME": ""}, "google/vit-base-patch16-224"),
        ({"MODEL_ID": ".", "MODEL_NAME": "pets"}, "pets"),
        ({}, BUNDLED_MODEL),
    ],
)
def test_model_name_wins_over_the_folders(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    assert SharedSettings.from_environment().model_name == name


@pytest.mark.parametrize(
    "variables", [{"MODEL_ID": path} for path in ("/", ".", "../..", "~")] + [{"MODEL_NAME": "a\n"}]
)
def test_model_without_a_usable_name_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    with pytest.raises(StartupError, match=r"MODEL_NAME: .* cannot name the model: set a name\.$"):
        SharedSettings.from_environment()


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


def test_sentinels_are_read_with_their_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SENTINELS", "10.0.0.5:26380, sentinel.internal ,[fd00::5]:26381")
    monkeypatch.setenv("REDIS_SENTINEL_SERVICE", "images")
    monkeypatch.setenv("REDIS_SENTINEL_PASSWORD", "p@ss:w/rd")

    settings = SharedSettings.from_environment()

    addresses = (("10.0.0.5", 26380), ("sentinel.internal", 26379), ("fd00::5", 26381))
    assert settings.sentinels == Sentinels(addresses, "images", "p@ss:w/rd")
    assert "p@ss" not in f"{settings!r}{settings.sentinels!r}"


def test_without_sentinels_the_address_is_that_of_redis() -> None:
    assert SharedSettings.from_environment().sentinels is None


@pytest.mark.parametrize("sentinels", ["redis://host:26379", "user@host", "host:port", "host:0x5", ":26379", "a b"])
def test_address_that_is_none_of_a_sentinel_is_refused(monkeypatch: pytest.MonkeyPatch, sentinels: str) -> None:
    monkeypatch.setenv("REDIS_SENTINELS", sentinels)

    with pytest.raises(StartupError, match=r"^REDIS_SENTINELS: .* is not the address of a sentinel"):
        SharedSettings.from_environment()


def test_sentinels_do_not_go_with_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SENTINELS", "host:26379")
    monkeypatch.setenv("REDIS_URL", "unix:///run/redis.sock")

    with pytest.raises(StartupError, match=r"^REDIS_SENTINELS: .*REDIS_URL must begin with"):
        SharedSettings.from_environment()


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
    check_redis_version([b"server", b"redis", b"version", version.encode(), b"proto", 2])


@pytest.mark.parametrize("version", ["6.0.16", "5.0.7", "2.8"])
def test_old_redis_is_refused(version: str) -> None:
    with pytest.raises(StartupError, match=r"needs Redis 6\.2 or newer"):
        check_redis_version([b"version", version.encode()])


def test_redis_that_does_not_know_hello_is_refused() -> None:
    with pytest.raises(StartupError, match=r"Redis before 6\.0 is too old: the service needs Redis 6\.2 or newer"):
        check_redis_version([])
