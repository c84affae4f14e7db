"""A zero-shot model: an image and labels in, predictions out. An image's embedding answers any question about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from image_analysis_common.job_errors import LabelsRequired
from image_analysis_common.models import TOP_K, ZERO_SHOT, ModelAnnouncement, Prediction
from image_analysis_worker.decoding.decoder import Decoder, Pixels
from image_analysis_worker.engines.embeddings import LabelEmbeddings, Recent, Vectors, read_embedding, write_embedding
from image_analysis_worker.engines.engine import Decoder as AnyDecoder
from image_analysis_worker.engines.engine import in_one_line, time_third
from image_analysis_worker.engines.images import draw_blank
from image_analysis_worker.engines.inputs import Inputs
from image_analysis_worker.engines.labels import Labels
from image_analysis_worker.jobs.batching import Embedding, Job
from image_analysis_worker.metrics import EMBEDDINGS, ENGINE

NO_LABELS = Labels([], is_exclusive=True)


class Towers(Protocol):
    """A zero-shot checkpoint on one device, in one precision; each tower is for one thread at a time."""

    engine: str
    precision: str
    device: str
    batch_size: int
    """The size of a batch of images from which throughput does not grow."""
    is_exclusive: bool
    """Whether the confidences are the softmax of the logits, and not the sigmoid of each."""
    scale: float
    bias: float
    """A logit is `scale` times the cosine of the two embeddings, plus `bias`."""

    def embed_images(self, pixels: NDArray[Any]) -> Vectors:
        """Compute the embeddings of a batch (B, 3, H, W): levels as uint8, or the processor's own float32."""

    def embed_texts(self, texts: list[str]) -> Vectors:
        """Compute the embeddings of texts, each cut to what the tower takes."""


@dataclass(frozen=True)
class Asked:
    """An input of a batch: a job, and what its answer is computed from."""

    job: Job
    labels: Labels
    vectors: Vectors
    """The embeddings of the labels."""
    image: Pixels | Vectors
    """The tower's input, or the embedding from the cache."""


class ZeroShotEngine:
    """A checkpoint on its towers, ready for images and labels."""

    def __init__(
        self, inputs: Inputs, towers: Towers, *, max_batch_size: int | None = None, labels_timeout_s: float
    ) -> None:
        """Make an engine; a job fails if its labels take longer than `labels_timeout_s`."""
        self._inputs = inputs
        self._towers = towers
        self._max_batch_size = max_batch_size or towers.batch_size
        self._labels = LabelEmbeddings(towers.embed_texts, timeout_s=labels_timeout_s)
        # Jobs about the same image can be in the model and in the batch before it at the same time.
        self._images = Recent(2 * self._max_batch_size, lambda _image_hash, _vector: 1)
        self.ref = inputs.describe(towers.precision)

    def open_decoder(self) -> Decoder:
        """Make a decoder, which makes the image tower's inputs from images; for one thread."""
        return self._inputs.decoders.open()

    def prepare(self, job: Job, decoder: AnyDecoder) -> Asked:
        """Find the embeddings of a job's labels, and decode its image unless the cache has its embedding.

        Raises:
            JobError: the image cannot be analyzed, there are no labels, or the labels take too long.
        """
        question = job.record.question
        if job.record.classifier is not None:  # Only the embedding is needed, and the cache has none.
            job.embedding = None
            return Asked(job, NO_LABELS, np.empty((0, 0), np.float32), decoder.decode(job.image))
        if question is None or not question.labels:
            raise LabelsRequired(model=self.ref.id)
        labels = Labels(list(question.labels), self._towers.is_exclusive)
        vectors = self._labels.find(question)
        known = read_embedding(job.embedding, dimension=vectors.shape[1])
        if known is None:
            job.embedding = None
            return Asked(job, labels, vectors, decoder.decode(job.image))
        EMBEDDINGS.labels("cache").inc()
        return Asked(job, labels, vectors, known)

    def classify(self, inputs: Sequence[Asked], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Return the `top_k` best labels of each input, best first, or all if there are fewer; for one thread.

        A job whose image was decoded gets its embedding. One for a classifier gets nothing else.
        """
        images, answers = self._embed_images(inputs), list[list[Prediction]]()
        for asked in inputs:
            vector = images[asked.job.record.image_hash]
            if asked.labels is NO_LABELS:
                answers.append([])
            else:
                logits = self._towers.scale * (asked.vectors @ vector) + self._towers.bias
                answers += asked.labels.rank(logits.reshape(1, -1), top_k)
            if asked.job.embedding is None:
                asked.job.embedding = Embedding(write_embedding(vector), is_cached=False)
        return answers

    def _embed_images(self, inputs: Sequence[Asked]) -> dict[str, Vectors]:
        """Return the embedding of each image by its SHA-256; each image goes through the tower once."""
        decoded = {asked.job.record.image_hash: asked.image for asked in inputs if isinstance(asked.image, Pixels)}
        found = self._images.find(decoded)
        found |= {asked.job.record.image_hash: asked.image for asked in inputs if not isinstance(asked.image, Pixels)}
        new = {image_hash: pixels for image_hash, pixels in decoded.items() if image_hash not in found}
        if new:
            vectors = self._towers.embed_images(self._inputs.stack(list(new.values())))
            computed = {image_hash: vector.copy() for image_hash, vector in zip(new, vectors, strict=True)}
            self._images.add(computed)
            found |= computed
        EMBEDDINGS.labels("tower").inc(len(new))
        EMBEDDINGS.labels("recent").inc(sum(isinstance(asked.image, Pixels) for asked in inputs) - len(new))
        return found

    def warm_up(self) -> ModelAnnouncement:
        """Run both towers until their first, slow calls are done, and describe the model and its speed.

        Raises:
            StartupError: it cannot analyze an image.
        """
        inputs, towers = self._inputs, self._towers
        inference_ms = in_one_line(inputs.checkpoint.name, self._try)
        ENGINE.labels(towers.engine, towers.precision).set(1)
        return ModelAnnouncement(
            model=self.ref,
            labels=[],
            accuracy=None,
            backend=towers.engine,
            device=towers.device,
            dtype=towers.precision,
            max_batch_size=self._max_batch_size,
            inference_ms=round(inference_ms, 2),
            function_to_apply="softmax" if towers.is_exclusive else "sigmoid",
            task=ZERO_SHOT,
            embeds=True,
        )

    def _try(self) -> float:
        """Embed a text and blank images; return the time of one image, in milliseconds."""
        blank = self._inputs.blank
        self._towers.embed_texts(["a photo"])
        self._towers.embed_images(self._inputs.stack([blank] * self._max_batch_size))
        return time_third(lambda: self._towers.embed_images(self._inputs.stack([blank])))

    def check_network(self) -> None:
        self._towers.embed_images(self._inputs.stack([self._inputs.blank]))

    def check_decoder(self, decoder: AnyDecoder) -> None:
        self._labels.check()
        decoder.decode(draw_blank())
