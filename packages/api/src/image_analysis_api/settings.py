"""Settings of the API and of the deliverer, from the environment alone."""

import re
from importlib.metadata import version
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from image_analysis_api.api_keys import ApiKey
from image_analysis_api.webhook_secrets import WebhookSecret
from image_analysis_common.settings import MAX_SECONDS, SharedSettings

PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){1,16}/?")
_NAME_SERVER = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[]+))(?::(?P<port>[0-9]{1,5}))?")


def _split(value: object) -> object:
    """Read a comma-separated variable."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_networks(value: object) -> object:
    return (
        [ip_network(part) if isinstance(part, str) else part for part in parts]
        if isinstance(parts := _split(value), list)
        else parts
    )


def _split_keys(value: object) -> object:
    return [ApiKey.parse(entry) for entry in parts] if isinstance(parts := _split(value), list) else parts


def _split_secrets(value: object) -> object:
    return [WebhookSecret.parse(entry) for entry in parts] if isinstance(parts := _split(value), list) else parts


def _check_name_server(server: str) -> str:
    parts = _NAME_SERVER.fullmatch(server)
    try:
        ip_address(parts["six"] or parts["four"] if parts else server)
        if parts and parts["port"] and not 0 < int(parts["port"]) < 2**16:
            raise ValueError("no such port")
    except ValueError as error:
        raise ValueError(
            f"{server!r} is not a name server: write it like 10.0.0.53, 10.0.0.53:5353 or [fd00::53]:5353"
        ) from error
    return server


def _check_origins(origins: frozenset[str]) -> frozenset[str]:
    # A browser sends scheme, host and port in lower case, without a path: any other form would never match.
    for origin in origins:
        if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\sA-Z]+", origin):
            raise ValueError(f"{origin!r} is not an origin: write it like https://app.example:8443, or * for all")
    return origins


def _check_user_agent(name: str) -> str:
    if not re.fullmatch(r"[!-~](?:[ -~]{0,254}[!-~])?", name):
        raise ValueError(
            f"{name!a} is not a User-Agent: write printable ASCII of at most 256 characters, "
            "like my-service/1.0 (+https://example.com/contact)"
        )
    return name


def _check_root_path(path: str) -> str:
    if not PATH_PREFIX.fullmatch(path):
        raise ValueError(f"{path!r} is not the prefix of a path: write it like /images")
    return path.rstrip("/")


CommaSeparated = Annotated[frozenset[str], NoDecode, BeforeValidator(_split)]
Ports = Annotated[frozenset[Annotated[int, Field(ge=1, le=65535)]], NoDecode, BeforeValidator(_split)]
ApiKeys = Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_split_keys)]
Origins = Annotated[CommaSeparated, AfterValidator(_check_origins)]
NameServers = Annotated[
    tuple[Annotated[str, AfterValidator(_check_name_server)], ...], NoDecode, BeforeValidator(_split)
]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split_networks)]
UserAgent = Annotated[str, AfterValidator(_check_user_agent)]
WebhookSecrets = Annotated[tuple[WebhookSecret, ...], NoDecode, BeforeValidator(_split_secrets)]


class OutboundSettings(SharedSettings):
    """Where user-supplied URLs may lead, and how webhooks are signed."""

    fetch_allowed_ports: Ports = frozenset({80, 443})
    fetch_allowed_hosts: CommaSeparated = frozenset()
    fetch_allowed_networks: Networks = ()
    fetch_dns_servers: NameServers = ()
    webhook_secret: WebhookSecrets = ()


class DelivererSettings(OutboundSettings):
    """The settings of the webhook deliverer."""

    deliverer_metrics_port: int | None = Field(None, ge=1, le=65535)


class ApiSettings(OutboundSettings):
    """The settings of the API."""

    api_title: str = "Image Analysis API"
    api_version: str = Field(default_factory=lambda: version("image-analysis-api"))
    api_host: str = "127.0.0.1"
    api_port: int = Field(8000, ge=0, le=65535)
    api_metrics_port: int | None = Field(None, ge=1, le=65535)
    api_keys: ApiKeys = ()
    trusted_proxies: Networks = ()
    root_path: Annotated[str, AfterValidator(_check_root_path)] | None = None
    cors_allow_origins: Origins = frozenset()
    playground: bool = True

    rate_limit_max_requests: int = Field(5, ge=1, le=2**31)
    rate_limit_interval_seconds: int = Field(60, ge=1, le=MAX_SECONDS)
    rate_limit_fail_open: bool = False

    max_image_bytes: int = Field(10_000_000, ge=1)
    max_batch_images: int = Field(64, ge=1, le=1000)
    max_batch_bytes: int = Field(64_000_000, ge=1)
    max_bodies_bytes: int = 256_000_000
    max_queue_depth: int = Field(1000, ge=1)
    max_queue_bytes: int = 256_000_000
    body_timeout_seconds: float = Field(60.0, gt=0, le=MAX_SECONDS)

    max_classifiers: int = Field(20, ge=0, le=1000)
    max_classifiers_bytes: int = Field(64_000_000, ge=1)

    min_replicas_ack: int = Field(0, ge=0)

    max_waiters: int = Field(2000, ge=1)
    max_waiters_per_client: int = Field(200, ge=1)

    fetch_timeout_seconds: float = Field(10.0, gt=0, le=MAX_SECONDS)
    fetch_max_concurrent: int = Field(64, ge=1)
    fetch_user_agent: UserAgent = "image-analysis"

    @field_validator("max_queue_bytes", "max_bodies_bytes")
    @classmethod
    def check_room(cls, max_bytes: int, others: ValidationInfo) -> int:
        """Check that the largest image fits, also in base64."""
        if max_bytes < 2 * others.data.get("max_image_bytes", 0):
            raise ValueError("it must be at least twice MAX_IMAGE_BYTES, or the largest image does not fit")
        return max_bytes

    @property
    def batch_bytes(self) -> int:
        """Most bytes of a batch's images: at most half of all bodies' bytes, but at least the largest image."""
        return max(self.max_image_bytes, min(self.max_batch_bytes, self.max_bodies_bytes // 2))
