"""The worker's path from bytes to predictions; the only module here that knows the worker's modules."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# As at the worker's start, before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from image_analysis_common.models import Prediction
from image_analysis_worker.engines.checkpoint import Checkpoint, find_checkpoint
from image_analysis_worker.engines.load import load_engine
from image_analysis_worker.engines.torch import TorchNetwork
from image_analysis_worker.settings import WorkerSettings

BATCH_SIZE = 8
ENGINE = TorchNetwork.engine
"""Named by its class, so that `time_load` does not time the import of torch."""


class Worker:
    """A model with its decoder, as in a worker."""

    def __init__(self, model_id: str) -> None:
        self.checkpoint: Checkpoint = find_checkpoint(model_id)
        self._classifier = load_engine(self.checkpoint, WorkerSettings(model_id=model_id, engine=ENGINE))
        self._decoder = self._classifier.open_decoder()
        self.announcement = self._classifier.warm_up()

    def classify(self, bodies: Sequence[bytes]) -> Iterator[list[Prediction]]:
        """Return each image's predictions, best first."""
        for first in range(0, len(bodies), BATCH_SIZE):
            batch = [self._decoder.decode(body) for body in bodies[first : first + BATCH_SIZE]]
            yield from self._classifier.classify(batch)

    def time_one(self, body: bytes, times: int) -> list[float]:
        """Time the model on one image: milliseconds, in ascending order."""
        prepared = self._decoder.decode(body)
        spans_ms = []
        for _ in range(times):
            started_s = time.perf_counter()
            self._classifier.classify([prepared])
            spans_ms.append((time.perf_counter() - started_s) * 1000)
        return sorted(spans_ms)


def time_load(folder: Path) -> float:
    """Time from reading a checkpoint's files to the first answer, in seconds."""
    started_s = time.perf_counter()
    Worker(str(folder))
    return time.perf_counter() - started_s
