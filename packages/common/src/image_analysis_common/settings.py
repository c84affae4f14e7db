"""Settings that every service reads, from environment variables only."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from image_analysis_common.startup import StartupError
from image_analysis_common.tasks import model_name

BUNDLED_MODEL = "vit-tiny-cifar10"
SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Sentinels:
    """The processes of Redis Sentinel, by host and port, that know the address of a service's primary."""

    addresses: tuple[tuple[str, int], ...]
    service: str
    password: str | None = field(default=None, repr=False)


def _split_addresses(value: object) -> object:
    """Read a comma-separated list of `host:port` or `host`."""
    if not isinstance(value, str):
        return value
    addresses = []
    for part in filter(None, map(str.strip, value.split(","))):
        try:
            url = urlsplit(f"//{part}")
            host, port = url.hostname, url.port or SENTINEL_PORT
        except ValueError:
            host = None
        if not host or part != url.netloc or "@" in part or " " in part:
            raise ValueError(f"{part!r} is not the address of a sentinel: write it like 10.0.0.5:26379")
        addresses.append((host, port))
    return tuple(addresses)


Addresses = Annotated[tuple[tuple[str, int], ...], NoDecode, BeforeValidator(_split_addresses)]
MAX_SECONDS = 10**8
"""Three years: the longest time of any setting. Clocks, timers and Redis cannot count to any number."""


REDIS_URL_FAULT = (
    "REDIS_URL: write it like redis://USER:PASSWORD@HOST:6379/0, with percent-encoded special characters. "
    "Only redis-py's options for TLS, names and passwords may follow after `?`."
)
REDIS_OPTION = re.compile(
    r"(db|health_check_interval)=\d+"
    r"|(username|password|client_name|ssl_(ca_certs|ca_path|ca_data|certfile|keyfile|password|cert_reqs|check_hostname))=.*"
)


class SharedSettings(BaseSettings):
    """The settings that all services share: Redis, model, cache, limits, logs."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    redis_url: SecretStr | None = None
    redis_host: str = "localhost"
    redis_port: int = Field(6379, ge=1, le=65535)
    redis_sentinels: Addresses = ()
    redis_sentinel_service: str = "mymaster"
    redis_sentinel_password: SecretStr | None = None
    model_id: str = Field(BUNDLED_MODEL, min_length=1)
    model_name: str = Field(
        default_factory=lambda fields: model_name(fields["model_id"]), max_length=200, validate_default=True
    )
    """The model's name for clients and in Redis keys."""
    cache_ttl_seconds: int = Field(3600, ge=0, le=MAX_SECONDS)
    max_image_pixels: int = Field(50_000_000, ge=1, le=2**31)
    job_timeout_seconds: int = Field(60, ge=1, le=MAX_SECONDS)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"
    metrics_host: str = "127.0.0.1"

    @field_validator("redis_sentinels")
    @classmethod
    def _check_scheme(cls, addresses: tuple[tuple[str, int], ...], others: ValidationInfo) -> tuple[object, ...]:
        url = others.data.get("redis_url")
        if addresses and url and url.get_secret_value().startswith("unix:"):
            raise ValueError("with sentinels, REDIS_URL must begin with redis:// or rediss://")
        return addresses

    @field_validator("model_name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in ("", ".", "..", "~") or name != name.strip() or not name.isprintable():
            raise ValueError(f"{name!r} cannot name the model: set a name")
        return name

    @property
    def sentinels(self) -> Sentinels | None:
        """Where the primary's address is asked for; None if `redis_dsn` has it."""
        if not self.redis_sentinels:
            return None
        password = self.redis_sentinel_password
        return Sentinels(
            self.redis_sentinels, self.redis_sentinel_service, password.get_secret_value() if password else None
        )

    @property
    def redis_dsn(self) -> str:
        """The address of Redis: `REDIS_URL` if set, otherwise host and port. It may contain a password.

        With `sentinels`, only its user, password, database and TLS options are used.
        """
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"redis://{quote(self.redis_host, safe=':[]')}:{self.redis_port}/0"

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings.

        Raises:
            StartupError: variables have invalid values; the message names each of them.
        """
        try:
            settings = cls()
        except ValidationError as error:
            faults = [f"{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
            said = "; ".join(faults).replace(": Value error, ", ": ")
            raise StartupError(f"{said}.") from error
        if not _is_redis(settings.redis_dsn):
            # The message repeats nothing of it: a part that seems to be the port can be one of the password.
            raise StartupError(REDIS_URL_FAULT if settings.redis_url else "REDIS_HOST: this is no name of a host.")
        return settings


def _is_redis(dsn: str) -> bool:
    """Whether an address of Redis is well-formed; redis-py would raise an error, or use database 0."""
    try:
        address = urlsplit(dsn)
        port = address.port
    except ValueError:
        return False
    is_socket = address.scheme == "unix" and address.path != ""
    is_host = address.scheme in ("redis", "rediss") and port != 0 and re.fullmatch(r"/?\d*", address.path)
    options = address.query.split("&") if address.query else []
    return bool(is_socket or is_host) and all(map(REDIS_OPTION.fullmatch, options))
