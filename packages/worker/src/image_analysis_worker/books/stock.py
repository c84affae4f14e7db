"""The task function under its old name, which queued jobs of the previous release contain."""

from image_analysis_worker.rq.task import analyze_image

__all__ = ["analyze_image"]
