"""Outbound HTTP to user-supplied URLs."""
