"""Secrets of webhooks, as Standard Webhooks writes them: the service's own, and one for each client, made from it.

A client that knew the service's secret could forge other clients' webhooks. So each owner of API keys has a secret of
its own: the HMAC-SHA256 of the owner's name under the service's. Where there are no keys, it is that of an empty name.
"""

import base64
import binascii
import hmac
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_bytes
from typing import Self

from standardwebhooks import Webhook

from image_analysis_api.api_keys import NAME

PREFIX = "whsec_"
KEY_BYTES = range(24, 65)


@dataclass(frozen=True)
class WebhookSecret:
    """An entry of `WEBHOOK_SECRET`, or what an owner gets."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read `whsec_` and base64.

        Raises:
            ValueError: it is not of this form; the message repeats nothing of it.
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
        """Derive the secret of an owner of API keys, or the one for all where there are none."""
        return WebhookSecret(hmac.digest(self.key, (owner or "").encode(), "sha256"))

    def __str__(self) -> str:
        return PREFIX + base64.b64encode(self.key).decode()


def sign(secrets: Sequence[WebhookSecret], owner: str | None, message_id: str, body: str) -> dict[str, str]:
    """Make the headers of a message to an owner, signed now with each of the service's secrets."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret.of(owner).key).sign(message_id, now, body) for secret in secrets),
    }


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
