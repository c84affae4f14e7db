"""The process that tells webhooks how their jobs have ended."""
