"""Webhook secrets in the format of Standard Webhooks: the service's secret, and one derived from it for each client.

A client that knew the service's secret could forge other clients' webhooks. So each owner of API keys has a secret:
the HMAC-SHA256 of the owner's name, with the service's secret as the key. Without API keys, the name is empty.
"""

import base64
import binascii
import hmac
import os
import sys
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Self

from image_analysis_api.api_keys import NAME

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)


@dataclass(frozen=True)
class WebhookSecret:
    """An entry of `WEBHOOK_SECRET`, or the secret of an owner."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read `whsec_` and base64.

        Raises:
            ValueError: the entry is malformed. The message does not repeat it.
        """
        try:
            key = base64.b64decode(entry.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not entry.startswith(PREFIX) or len(key) not in KEY_BYTES:
            raise ValueError(
                f"each entry is {PREFIX} and {KEY_BYTES.start} to {KEY_BYTES.stop - 1} random bytes in base64: "
                "make one with `just webhook-secret --new`"
            )
        return cls(key)

    @classmethod
    def make(cls) -> Self:
        return cls(token_bytes(32))

    def of(self, owner: str | None) -> "WebhookSecret":
        """Derive the secret of an owner of API keys; None is every client of a service without API keys."""
        return WebhookSecret(hmac.digest(self.key, (owner or "").encode(), "sha256"))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.key).decode()


def main() -> None:
    """Print a client's secret, or a new one for the service: `python -m image_analysis_api.webhook_secrets [OWNER]`."""
    match sys.argv[1:]:
        case ["--new"]:
            sys.stdout.write(f"{WebhookSecret.make()}\n")
            return
        case []:
            owner = None
        case [name] if NAME.fullmatch(name):
            owner = name
        case _:
            sys.exit("Give the name of one owner of API keys, no name if the service has no keys, or --new.")
    entries = [entry.strip() for entry in os.environ.get("WEBHOOK_SECRET", "").split(",") if entry.strip()]
    if not entries:
        sys.exit("WEBHOOK_SECRET is not set: make one with `just webhook-secret --new`.")
    try:
        secret = WebhookSecret.parse(entries[0])
    except ValueError as error:
        sys.exit(f"WEBHOOK_SECRET: {error}.")
    sys.stdout.write(f"{secret.of(owner)}\n")


if __name__ == "__main__":
    main()
