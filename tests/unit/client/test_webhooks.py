"""Webhooks at the receiver: right ones are read, any other is refused."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from image_analysis_client import InvalidWebhook, JobStatus, verify_webhook

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
OTHER_SECRET = "whsec_" + "WllYV1ZVVFNSUVBPTk1MS0pJSEdGRURDQkE="
JOB_ID = UUID("00000000-0000-0000-0000-000000000001")
BODY = f'{{"job_id": "{JOB_ID}", "status": "CANCELLED"}}'


def sign(body: str = BODY, secret: str = SECRET, age: timedelta = timedelta()) -> dict[str, str]:
    sent_at = datetime.now(UTC) - age
    return {
        "webhook-id": "m1",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign("m1", sent_at, body),
    }


@pytest.mark.parametrize("body", [BODY, BODY.encode()])
def test_right_webhook_gives_the_status_of_its_job(body: str | bytes) -> None:
    status = verify_webhook(SECRET, sign(), body)

    assert (status.job_id, status.status) == (JOB_ID, JobStatus.CANCELLED)


def test_names_of_headers_may_be_in_any_case() -> None:
    headers = {name.title(): value for name, value in sign().items()}

    assert verify_webhook(SECRET, headers, BODY).job_id == JOB_ID


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (sign(secret=OTHER_SECRET), BODY),
        (sign(), BODY.replace("CANCELLED", "COMPLETED")),
        (sign(), BODY + " "),
        (sign(age=timedelta(hours=1)), BODY),
        (sign(age=timedelta(hours=-1)), BODY),
        (sign() | {"webhook-id": "m2"}, BODY),
        (sign() | {"webhook-signature": "v1,none"}, BODY),
        (sign() | {"webhook-timestamp": "now"}, BODY),
        ({}, BODY),
        (sign("[]"), "[]"),
    ],
    ids=["secret", "tampered", "added", "old", "future", "id", "signature", "timestamp", "none", "no status"],
)
def test_any_other_webhook_is_refused(headers: dict[str, str], body: str) -> None:
    with pytest.raises(InvalidWebhook) as refused:
        verify_webhook(SECRET, headers, body)

    assert refused.value.code == "invalid_webhook"
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("secret", ["whsec_\u00e4", "whsec_a", ""])
def test_malformed_secret_is_a_value_error(secret: str) -> None:
    with pytest.raises(ValueError, match="The secret is malformed"):
        verify_webhook(secret, sign(), BODY)
