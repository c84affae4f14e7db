"""Reads request bodies and checks images before they are queued."""
