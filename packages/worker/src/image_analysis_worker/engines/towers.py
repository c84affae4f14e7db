"""Runs the two towers of a zero-shot checkpoint of transformers on torch."""

from typing import Any

import torch
from numpy.typing import NDArray
from transformers import AutoModelForZeroShotImageClassification, AutoTokenizer

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.preparation import Preparation
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.embeddings import Vectors
from image_analysis_worker.engines.engine import find_reason
from image_analysis_worker.engines.torch import Tensors, load_pretrained

SIGLIP_TOKENS = 64
"""The length of SigLIP's texts, padded, as transformers' pipeline has it: the checkpoints were trained with it."""


class TorchTowers:
    """A CLIP or a SigLIP on the GPU, if there is one, or on the CPU. Each tower is for one thread at a time."""

    engine = "torch"

    def __init__(self, checkpoint: Checkpoint, preparation: Preparation, precision: str) -> None:
        """Load a checkpoint and move it to its device.

        Raises:
            StartupError: it lacks weights or a tokenizer, or is no zero-shot checkpoint.
        """
        self._model, self._tokenizer = _load(checkpoint)
        self._model.eval().requires_grad_(False)
        self.is_exclusive = "siglip" not in self._model.config.model_type
        # In float32, because bfloat16 would make 98.9 of a scale of 100.
        self.scale = float(self._model.logit_scale.exp())
        self.bias = 0.0 if self.is_exclusive else float(self._model.logit_bias)
        self._tensors = Tensors(preparation, precision)
        self._model.to(self._tensors.device, self._tensors.dtype)
        self.precision = precision
        self.device = self._tensors.device_name
        self.batch_size = self._tensors.batch_size
        context = self._model.config.text_config.max_position_embeddings
        self._options: dict[str, Any] = {
            "padding": True if self.is_exclusive else "max_length",
            "max_length": context if self.is_exclusive else min(context, SIGLIP_TOKENS),
            "truncation": True,
            "return_tensors": "pt",
        }

    @torch.inference_mode()
    def embed_images(self, pixels: NDArray[Any]) -> Vectors:
        """Compute the embeddings of a batch (B, 3, H, W) as `Network.run` takes it: (B, D), each of length 1."""
        return _normalize(self._model.get_image_features(pixel_values=self._tensors.make(pixels)))

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> Vectors:
        """Compute the embeddings of texts, cut to what the tower takes: (texts, D), each of length 1."""
        tokens = self._tokenizer(texts, **self._options).to(self._tensors.device)
        return _normalize(self._model.get_text_features(**tokens))


def _normalize(features: Any) -> Vectors:
    values = features.pooler_output.float()
    normalized: Vectors = (values / values.norm(p=2, dim=-1, keepdim=True)).cpu().numpy()
    return normalized


def _load(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load a checkpoint's model, in float32, and its tokenizer.

    Raises:
        StartupError: it lacks weights or a tokenizer.
    """
    refusal = f"{checkpoint.name} cannot be served"
    model = load_pretrained(AutoModelForZeroShotImageClassification, checkpoint, refusal)
    try:
        return model, AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # The last line of defense: a folder can hold anything, and transformers can raise anything.
        raise StartupError(f"{refusal}: {find_reason(error)}") from error
