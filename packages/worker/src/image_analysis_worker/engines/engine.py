"""A loaded model: images in, predictions out. It runs on any `Network`, which is what each engine implements."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.job_errors import EmbeddingsNotSupported, LabelsNotSupported
from image_analysis_common.models import MAX_DIMENSION, TOP_K, EngineReport, ModelAnnouncement, ModelRef, Prediction
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decoder import Decoder as ImageDecoder
from image_analysis_worker.decoding.decoder import Pixels
from image_analysis_worker.engines.embeddings import normalize, write_embedding
from image_analysis_worker.engines.images import draw_blank
from image_analysis_worker.engines.inputs import Inputs
from image_analysis_worker.jobs.batching import Embedding, Job
from image_analysis_worker.metrics import ENGINE

T = TypeVar("T")


class Decoder(Protocol):
    """Makes one input of a batch from an image's bytes; for one thread."""

    def decode(self, body: bytes) -> Any:
        """Make the input.

        Raises:
            JobError: the image cannot be analyzed.
        """


class Model(Protocol):
    """What the worker's threads use; `Engine` is the implementation, and `ZeroShotEngine` that of zero-shot models."""

    ref: ModelRef

    def open_decoder(self) -> Decoder:
        """Make a decoder; called by each thread that decodes."""

    def prepare(self, job: Job, decoder: Decoder) -> Any:
        """Make a job's input of a batch; called by each thread that decodes.

        Raises:
            JobError: the image cannot be analyzed, or the job has labels and must not, or has none and must.
        """

    def classify(self, inputs: Sequence[Any], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Return the `top_k` best predictions of each input, best first, or all if there are fewer; for one thread."""

    def warm_up(self) -> ModelAnnouncement:
        """Run the model until its first, slow calls are done, and describe it."""

    def check_network(self) -> None:
        """Run the network on a blank image, which raises anything if it is broken; for the thread that classifies."""

    def check_decoder(self, decoder: Decoder) -> None:
        """Prepare a blank image, which raises anything if that is broken; for the thread of the decoder."""


class Network(Protocol):
    """A model's network on one device, in one precision; for one thread. It normalizes its inputs."""

    engine: str
    precision: str
    device: str
    batch_size: int
    """The size of a batch from which throughput does not grow; 1 if it takes one image at a time only."""

    def run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the logits, (B, labels), of inputs (B, 3, H, W): levels as uint8, or the processor's own float32."""

    def embed(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the logits as `run` does, and what enters the classifier, (B, D); D is 0 if that cannot be found."""


@dataclass(frozen=True)
class Asked:
    """An input of a batch whose job asks for the image's embedding."""

    job: Job
    pixels: Pixels


class Engine:
    """A checkpoint on one network, ready for images."""

    def __init__(
        self,
        inputs: Inputs,
        network: Network,
        *,
        max_batch_size: int | None = None,
        measured: Sequence[EngineReport] = (),
    ) -> None:
        self._inputs = inputs
        self._network = network
        self._max_batch_size = 1 if network.batch_size == 1 else max_batch_size or network.batch_size
        self._measured = list(measured)
        self._embeds = False
        self.ref = inputs.describe(network.precision)

    def open_decoder(self) -> ImageDecoder:
        """Make a decoder, which makes this model's inputs from images; for one thread."""
        return self._inputs.decoders.open()

    def prepare(self, job: Job, decoder: Decoder) -> Any:
        """Decode a job's image.

        Raises:
            JobError: the image cannot be analyzed, or the job brings labels.
        """
        if job.record.question is not None:
            raise LabelsNotSupported(model=self.ref.id)
        pixels = decoder.decode(job.image)
        return Asked(job, pixels) if job.record.needs_embedding else pixels

    def classify(self, inputs: Sequence[Pixels | Asked], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Return the `top_k` best predictions of each input (3, H, W), best first, or all if there are fewer.

        A job that asks for its image's embedding gets it.

        Raises:
            EmbeddingsNotSupported: a job asks for it, and the model has none.
        """
        answers = [list[Prediction]() for _ in inputs]
        pixels = [found.pixels if isinstance(found, Asked) else found for found in inputs]
        for places, batch in self._inputs.stack_by_size(pixels):
            predictions = self._classify(batch, [inputs[place] for place in places], top_k)
            for place, answer in zip(places, predictions, strict=True):
                answers[place] = answer
        return answers

    def _classify(self, batch: NDArray[Any], inputs: Sequence[Pixels | Asked], top_k: int) -> list[list[Prediction]]:
        if not any(isinstance(found, Asked) for found in inputs):
            return self._inputs.labels.rank(self._network.run(batch), top_k)
        logits, entered = self._network.embed(batch)
        if not _is_embedding(entered):
            raise EmbeddingsNotSupported(model=self.ref.id)
        for asked, vector in zip(inputs, normalize(entered), strict=True):
            if isinstance(asked, Asked):
                asked.job.embedding = Embedding(write_embedding(vector), is_cached=False)
        return self._inputs.labels.rank(logits, top_k)

    def warm_up(self) -> ModelAnnouncement:
        """Run the model until its first, slow calls are done, and describe it and its speed.

        Raises:
            StartupError: it cannot analyze an image.
        """
        inputs, network = self._inputs, self._network
        inference_ms = in_one_line(inputs.checkpoint.name, self._try)
        ENGINE.labels(network.engine, network.precision).set(1)
        return ModelAnnouncement(
            model=self.ref,
            labels=inputs.labels.names,
            accuracy=inputs.checkpoint.accuracy,
            backend=network.engine,
            device=network.device,
            dtype=network.precision,
            max_batch_size=self._max_batch_size,
            inference_ms=round(inference_ms, 2),
            function_to_apply="softmax" if inputs.labels.is_exclusive else "sigmoid",
            engines=self._measured,
            embeds=self._embeds,
        )

    def _try(self) -> float:
        """Classify blank images; return the time of one, in milliseconds."""
        blank = self._inputs.blank
        logits, entered = self._network.embed(self._inputs.stack([blank]))
        self._embeds = _is_embedding(entered)
        outputs, labels = logits.shape[-1], self._inputs.labels.names
        if outputs != len(labels):
            raise StartupError(
                f"{self.ref.id}: config.json names {len(labels)} labels, and the model has {outputs} outputs."
            )
        self.classify([blank] * self._max_batch_size)
        return time_third(lambda: self.classify([blank]))

    def check_network(self) -> None:
        self._network.run(self._inputs.stack([self._inputs.blank]))

    def check_decoder(self, decoder: Decoder) -> None:
        decoder.decode(draw_blank())


def _is_embedding(entered: NDArray[np.float32]) -> bool:
    return bool(0 < entered.shape[1] <= MAX_DIMENSION)


def time_third(run: Callable[[], object]) -> float:
    """Return the time of the third call, in milliseconds; the first ones are slow."""
    for _ in range(3):
        started_s = time.perf_counter()
        run()
    return (time.perf_counter() - started_s) * 1000


def in_one_line(model: str, function: Callable[[], T]) -> T:
    """Call a function; turn whatever it raises into one line for the operator.

    Raises:
        StartupError: the function failed.
    """
    try:
        return function()
    except StartupError:
        raise
    except Exception as error:
        # The last line of defense: a folder can hold anything, and the libraries that read it can raise anything.
        raise StartupError(f"{model} cannot be served: {find_reason(error)}") from error


def find_reason(error: Exception) -> str:
    """Return the line of an error that says most: OpenVINO's begin with lines such as `Exception from core.cpp:84:`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), next(iter(lines), type(error).__name__))
