"""A value that a service cannot work with is refused at its start, in one line that names the variable."""

import pytest

from image_analysis_api.settings import ApiSettings, DelivererSettings
from image_analysis_common.settings import SharedSettings
from image_analysis_common.startup import StartupError
from image_analysis_worker.settings import WorkerSettings

SERVICES: list[type[SharedSettings]] = [ApiSettings, DelivererSettings, WorkerSettings]
ODD = ["\x01 bad", "-7", "9" * 30, "nan", "1e400", "a\nb", "[", "é", "http://[", "a:b", ",", "None"]
TEXTS = {"API_TITLE", "API_VERSION", "API_HOST", "METRICS_HOST", "FETCH_ALLOWED_HOSTS", "MODEL_REVISION", "MODEL_ID"}
"""Variables that may hold any text; what uses them reports a mistake."""


def refusal(service: type[SharedSettings]) -> str | None:
    try:
        service.from_environment()
    except StartupError as error:
        return str(error)
    return None


@pytest.mark.parametrize("service", SERVICES)
def test_refusal_is_one_line_that_names_the_variable(
    service: type[SharedSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = set()
    for name in map(str.upper, service.model_fields):
        for value in ODD:
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                said = refusal(service)
            if said is None:
                accepted.add(name)
            else:
                assert name in said or said.startswith("MODEL_NAME: ")
                assert said.isprintable()
                assert "Value error" not in said

    numbers = {name for name in accepted if name.endswith(("SECONDS", "PORT", "PORTS", "PIXELS", "REQUESTS", "MS"))}
    assert numbers <= {"FETCH_ALLOWED_PORTS"}  # a comma is an empty list
    assert TEXTS & {name.upper() for name in service.model_fields} <= accepted


ADDRESSES = {
    "redis://h": True,
    "redis://h/": True,
    "redis://user:p%40ss@h:6380/3": True,
    "rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required": True,
    "redis://[::1]:6379/0?db=2": True,
    "unix:///run/redis.sock?db=1": True,
    "unix://": False,
    "http://h": False,
    "h:6379": False,
    "redis://h:port/0": False,
    "redis://h:0/0": False,
    "redis://h:99999/0": False,
    "redis://h/zero": False,
    "redis://user:pa/ss@h:6379/0": False,
    "redis://[::1/0": False,
    "redis://h/0?db=x": False,
    "redis://h/0?unknown=1": False,
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_address_of_redis_is_checked_and_never_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    said = refusal(SharedSettings)

    assert (said is None) == ADDRESSES[url]
    assert said is None or (said.startswith("REDIS_URL: write it like redis://") and "pa/ss" not in said)


@pytest.mark.parametrize("host", ["[", "a:b", "redis host"])
def test_host_of_redis_is_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HOST", host)

    said = refusal(SharedSettings)

    assert said in (None, "REDIS_HOST: this is no name of a host.")
    assert (said is None) == (" " in host and "redis%20host" in SharedSettings.from_environment().redis_dsn)


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "http")
    monkeypatch.setenv("LOG_LEVEL", "loud")

    said = refusal(ApiSettings) or ""

    assert [fault.partition(":")[0] for fault in said.split("; ")] == ["LOG_LEVEL", "API_PORT"]
