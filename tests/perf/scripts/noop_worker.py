"""Our worker with a model that does nothing, to measure the worker's own time."""

import sys
from collections.abc import Sequence

from image_analysis_common.logs import configure_logs
from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction
from image_analysis_worker.__main__ import serve
from image_analysis_worker.engines.engine import Decoder
from image_analysis_worker.jobs.batching import Job
from image_analysis_worker.settings import WorkerSettings

MAX_BATCH_SIZE = 8
ANSWER = [Prediction(label="cat", confidence=0.2)] * TOP_K


class NoDecoder:
    """Decodes nothing."""

    def decode(self, body: bytes) -> None:
        """Return the image unchanged."""


class NoModel:
    """Answers at once with the same result for every image."""

    def __init__(self, name: str, max_batch_size: int) -> None:
        self.ref = ModelRef(id=name, revision="1", preprocessing="1")
        self._max_batch_size = max_batch_size

    def open_decoder(self) -> NoDecoder:
        return NoDecoder()

    def prepare(self, job: Job, decoder: Decoder) -> None:
        """Take nothing of the image."""

    def classify(self, inputs: Sequence[None], top_k: int = TOP_K) -> list[list[Prediction]]:
        return [ANSWER] * len(inputs)

    def warm_up(self) -> ModelAnnouncement:
        return ModelAnnouncement(
            model=self.ref,
            labels=["cat"],
            accuracy=None,
            device="none",
            dtype="none",
            max_batch_size=self._max_batch_size,
            inference_ms=0,
        )

    def check_network(self) -> None:
        """Nothing can be broken."""

    def check_decoder(self, decoder: Decoder) -> None:
        """Nothing can be broken."""


def main() -> None:
    settings = WorkerSettings.from_environment()
    configure_logs(settings, "worker")
    sys.exit(serve(settings, NoModel(settings.model_id, settings.max_batch_size or MAX_BATCH_SIZE)))


if __name__ == "__main__":
    main()
