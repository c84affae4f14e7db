"""API keys, rate limits and Idempotency-Keys."""
