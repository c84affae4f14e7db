"""Settings that every service reads, from environment variables only."""

from typing import Literal, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from image_analysis_common.startup import StartupError
from image_analysis_common.tasks import model_name

BUNDLED_MODEL = "vit-tiny-cifar10"


class SharedSettings(BaseSettings):
    """The settings that all services share: Redis, model, cache, limits, logs."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    redis_url: SecretStr | None = None
    redis_host: str = "localhost"
    redis_port: int = Field(6379, ge=1, le=65535)
    model_id: str = Field(BUNDLED_MODEL, min_length=1)
    model_name: str = Field(
        default_factory=lambda fields: model_name(fields["model_id"]), max_length=200, validate_default=True
    )
    """The model's name for clients and in Redis keys."""
    cache_ttl_seconds: int = Field(3600, ge=0)
    max_image_pixels: int = Field(50_000_000, ge=1)
    job_timeout_seconds: int = Field(60, ge=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "console", "json"] = "auto"
    metrics_host: str = "127.0.0.1"

    @field_validator("model_name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in ("", ".", "..", "~") or name != name.strip() or not name.isprintable():
            raise ValueError(f"{name!r} cannot name the model: set a name")
        return name

    @property
    def redis_dsn(self) -> str:
        """The address of Redis: `REDIS_URL` if set, otherwise host and port. It may contain a password."""
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
            return cls()
        except ValidationError as error:
            faults = [f"{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
            raise StartupError("; ".join(faults) + ".") from error
