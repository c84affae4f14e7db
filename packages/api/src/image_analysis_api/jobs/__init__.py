"""Submits, reads, lists and cancels jobs in Redis."""
