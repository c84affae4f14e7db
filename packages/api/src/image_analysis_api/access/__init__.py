"""Who may call, how often, and once per Idempotency-Key."""
