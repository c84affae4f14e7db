"""An engine answers every input of a batch, whatever their sizes are."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from image_analysis_worker.decoding.decoder import Pixels
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.engine import Asked, Engine
from image_analysis_worker.engines.inputs import Inputs
from image_analysis_worker.engines.labels import Labels
from support.jobs import make_job

SQUARE, WIDE = (3, 2, 2), (3, 2, 4)


class BrightnessNetwork:
    """Tells a dark image from a bright one, and remembers the batches."""

    engine, precision, device, batch_size = "fake", "float32", "cpu", 8

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        self.batches.append(pixels.shape)
        level = pixels.reshape(len(pixels), -1).mean(axis=1)
        return np.stack([255 - level, level], axis=1).astype(np.float32)

    def embed(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits = self.run(pixels)
        return logits, logits


def make_pixels(shape: tuple[int, ...], level: int) -> Pixels:
    return Pixels(shape, bytearray([level]) * int(np.prod(shape)))


@pytest.fixture
def network() -> BrightnessNetwork:
    return BrightnessNetwork()


@pytest.fixture
def engine(network: BrightnessNetwork) -> Engine:
    decoders = cast(Any, SimpleNamespace(preparation=SimpleNamespace(dtype="uint8")))
    labels = Labels(["dark", "bright"], is_exclusive=True)
    return Engine(Inputs(Checkpoint("m", Path(), "1"), labels, decoders), network)


def test_inputs_of_each_size_go_through_the_network_together(engine: Engine, network: BrightnessNetwork) -> None:
    inputs = [make_pixels(SQUARE, 0), make_pixels(WIDE, 255), make_pixels(SQUARE, 255), make_pixels(WIDE, 0)]

    answers = engine.classify(inputs, 1)

    assert [answer[0].label for answer in answers] == ["dark", "bright", "bright", "dark"]
    assert network.batches == [(2, *SQUARE), (2, *WIDE)]


def test_each_job_gets_the_embedding_of_its_own_input(engine: Engine) -> None:
    jobs = [make_job(str(number)) for number in range(3)]
    pixels = [make_pixels(SQUARE, 0), make_pixels(WIDE, 255), make_pixels(SQUARE, 255)]

    engine.classify([Asked(job, found) for job, found in zip(jobs, pixels, strict=True)])

    vectors = [np.frombuffer(job.embedding.values, "<f4").tolist() if job.embedding else None for job in jobs]
    assert vectors == [[1, 0], [0, 1], [0, 1]]
