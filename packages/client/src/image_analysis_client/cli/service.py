"""The service that a command talks to."""

import os
from dataclasses import dataclass, field

import typer

from image_analysis_client.client import Client

KEY_VARIABLE = "IMAGE_ANALYSIS_API_KEY"
URL_VARIABLE = "IMAGE_ANALYSIS_URL"


@dataclass(frozen=True)
class Service:
    """Its address and the user's key, from the options or else from the environment."""

    url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def connect(self, *, max_retry_seconds: float = 120.0) -> Client:
        """Make a client.

        Raises:
            BadParameter: the address or the key is malformed.
        """
        try:
            return Client(self.url, self.api_key, max_retry_seconds=max_retry_seconds)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    @property
    def arguments(self) -> list[str]:
        """The options that name this service in another command; the key is never one of them."""
        return ["--url", self.url] if self.url and self.url != os.environ.get(URL_VARIABLE) else []

    @property
    def has_key(self) -> bool:
        return bool(self.api_key or os.environ.get(KEY_VARIABLE))

    @property
    def needs_key_variable(self) -> bool:
        """Whether another command lacks the key, because it came as an option."""
        return bool(self.api_key) and self.api_key != os.environ.get(KEY_VARIABLE)
