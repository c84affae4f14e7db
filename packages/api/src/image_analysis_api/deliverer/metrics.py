"""What a deliverer counts, for Prometheus; how much waits for it, the API tells."""

from prometheus_client import Counter

ATTEMPTS = Counter(
    "image_analysis_webhook_attempts_total",
    "Delivery attempts: `delivered`, `retried` later, or given up as `rejected`, `refused` or `expired`",
    ["outcome"],
)
for _outcome in ("delivered", "retried", "rejected", "refused", "expired"):
    ATTEMPTS.labels(_outcome)  # from zero on, or the first one of a kind would be no growth
