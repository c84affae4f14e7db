"""The task function under the name that jobs of the release before this one carry."""

from image_analysis_worker.rq.task import analyze_image

__all__ = ["analyze_image"]
