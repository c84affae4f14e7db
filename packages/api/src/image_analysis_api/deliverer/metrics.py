"""What a deliverer counts, for Prometheus; how much waits for it, the API tells."""

from prometheus_client import Counter

ATTEMPTS = Counter(
    "image_analysis_webhook_attempts_total",
    "Attempts at telling a webhook: `delivered`, `retried` later, or given up as `rejected`, `refused` or `expired`",
    ["outcome"],
)
