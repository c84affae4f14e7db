"""Clients that wait for a job."""
