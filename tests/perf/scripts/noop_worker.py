"""Our worker around a model that does nothing: what is left is what the worker costs by itself."""

import sys
from collections.abc import Sequence

from image_analysis_common.logs import configure_logs
from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction
from image_analysis_worker.__main__ import serve
from image_analysis_worker.settings import WorkerSettings

MAX_BATCH_SIZE = 8
ANSWER = [Prediction(label="cat", confidence=0.2)] * TOP_K


class NoDecoder:
    """Decodes nothing."""

    def decode(self, body: bytes) -> None:
        """Leave the image as it is."""


class NoModel:
    """Answers at once, whatever the image."""

    def __init__(self, name: str, max_batch_size: int) -> None:
        self.ref = ModelRef(id=name, revision="1", preprocessing="1")
        self._max_batch_size = max_batch_size

    def open_decoder(self) -> NoDecoder:
        return NoDecoder()

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


def main() -> None:
    settings = WorkerSettings.from_environment()
    configure_logs(settings, "worker")
    sys.exit(serve(settings, NoModel(settings.model_id, settings.max_batch_size or MAX_BATCH_SIZE)))


if __name__ == "__main__":
    main()
