"""Verifying webhooks: the format is Standard Webhooks."""

from collections.abc import Mapping

from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from image_analysis_client.errors import InvalidWebhook
from image_analysis_client.responses import AnalysisStatus


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes | str) -> AnalysisStatus:
    """Return the job's status that a webhook brought; `body` is what arrived, byte for byte.

    Raises:
        InvalidWebhook: it is forged, was changed, is more than 5 minutes old, or is not a job's status.
        ValueError: the secret is malformed.
    """
    try:
        if not secret.removeprefix("whsec_"):
            raise ValueError("The secret is empty.")
        webhook = Webhook(secret)
    except (RuntimeError, ValueError) as error:
        raise ValueError("The secret is malformed: it begins with whsec_, and the operator has it.") from error
    try:
        webhook.verify(body, dict(headers), json_parse=False)
        return AnalysisStatus.model_validate_json(body)
    except ValidationError as error:
        raise InvalidWebhook("The webhook is signed, but its body is not a job's status.") from error
    except (WebhookVerificationError, ValueError) as error:
        raise InvalidWebhook(f"The webhook cannot be trusted: {error}.") from error
