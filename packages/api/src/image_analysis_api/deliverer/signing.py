"""Signs webhooks as Standard Webhooks describes."""

from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from image_analysis_api.webhook_secrets import WebhookSecret


def sign(secrets: Sequence[WebhookSecret], owner: str | None, message_id: str, body: str) -> dict[str, str]:
    """Make the headers of a webhook to an owner, with a signature by each of the service's secrets."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret.of(owner).key).sign(message_id, now, body) for secret in secrets),
    }
