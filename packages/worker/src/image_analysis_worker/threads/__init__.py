"""The worker's threads."""
