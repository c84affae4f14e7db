"""The use case: a job's image becomes a result, and the job's record says so."""

import time
from typing import Any

import structlog

from image_analysis_common.errors import ImageExpired
from image_analysis_common.models import AnalysisResult, JobStatus
from image_analysis_worker.classifier import Classifier
from image_analysis_worker.decoding import decode_image
from image_analysis_worker.records import Records

log = structlog.get_logger(__name__)


class Analyzer:
    """Runs jobs, one at a time, on one model."""

    def __init__(self, classifier: Classifier, records: Records, *, max_pixels: int) -> None:
        self.records = records
        self._classifier = classifier
        self._max_pixels = max_pixels
        self.announcement = classifier.warm_up()

    def run(self, job_id: str) -> dict[str, Any] | None:
        """Analyze a job's image and write the answer; return it as JSON-ready fields for RQ's books.

        A job that has ended is left as it is: a second run after a crash changes nothing.

        Raises:
            ImageExpired, CorruptImage
        """
        started_s = time.perf_counter()
        record, image = self.records.begin(job_id)
        if record is None or record.status is not JobStatus.PROCESSING:
            log.info("job_ended_before", status=record and record.status)
            return record.result.model_dump() if record and record.result else None
        if image is None:
            raise ImageExpired("The image waited longer than it is kept: submit it again.")
        pixels = self._classifier.preprocess([decode_image(image, self._max_pixels)])
        [predictions] = self._classifier.classify(pixels)
        result = AnalysisResult(
            label=predictions[0].label,
            confidence=predictions[0].confidence,
            predictions=predictions,
            model=self._classifier.ref,
        )
        processing_time_ms = round((time.perf_counter() - started_s) * 1000, 2)
        self.records.complete(job_id, record.image_hash, result, processing_time_ms)
        log.info("job_completed", label=result.label, processing_time_ms=processing_time_ms)
        return result.model_dump()
