"""The task function that RQ calls by its name in `common.tasks`; any RQ worker with the JSON serializer can run it."""

from functools import cache
from typing import Any

from image_analysis_worker.analyzer import Analyzer
from image_analysis_worker.checkpoint import find_checkpoint
from image_analysis_worker.classifier import Classifier
from image_analysis_worker.records import Records, connect
from image_analysis_worker.settings import WorkerSettings


@cache
def load_analyzer() -> Analyzer:
    """Load the environment's model, once in a process.

    Raises:
        StartupError: there is no such model.
    """
    settings = WorkerSettings.from_environment()
    classifier = Classifier.load(find_checkpoint(settings.model_id, settings.model_revision))
    records = Records(connect(settings.redis_dsn), cache_ttl_s=settings.cache_ttl_seconds)
    return Analyzer(classifier, records, max_pixels=settings.max_image_pixels)


def analyze_image(*, job_id: str) -> dict[str, Any] | None:
    """Analyze the image of a job; see `Analyzer.run`."""
    return load_analyzer().run(job_id)
