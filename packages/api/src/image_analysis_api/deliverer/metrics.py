"""Prometheus metrics of the deliverer; the API reports how many webhooks are pending."""

from prometheus_client import Counter

ATTEMPTS = Counter(
    "image_analysis_webhook_attempts_total",
    "Delivery attempts: `delivered`, `retried` later, or given up as `rejected`, `refused` or `expired`",
    ["outcome"],
)
for _outcome in ("delivered", "retried", "rejected", "refused", "expired"):
    ATTEMPTS.labels(_outcome)  # start at 0, so that the first one counts as an increase
