"""The command line `image-analysis`."""

from image_analysis_client.cli.app import main

__all__ = ["main"]
