"""The model: transformers' image-classification pieces on torch; the one module that imports either."""

import time
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as transformers_logging

from image_analysis_common.errors import StartupError
from image_analysis_common.models import ModelAnnouncement, ModelRef, Prediction
from image_analysis_worker.checkpoint import Checkpoint
from image_analysis_worker.decoding import PREPROCESSING_VERSION

TOP_K = 5


class Classifier:
    """A checkpoint on its device, ready for images."""

    def __init__(self, checkpoint: Checkpoint, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
        self._checkpoint = checkpoint
        self._processor = processor
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: torch.nn.Module = model.eval()
        self._model.to(self._device)
        config = model.config
        self._labels = [label for _, label in sorted((config.id2label or {}).items())]
        # As transformers' pipeline decides it: labels that exclude each other share one belief.
        self._is_exclusive = config.problem_type != "multi_label_classification" and len(self._labels) > 1
        self.ref = ModelRef(id=checkpoint.name, revision=checkpoint.revision, preprocessing=PREPROCESSING_VERSION)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "Classifier":
        """Load a checkpoint in float32.

        Raises:
            StartupError: it is no image-classification checkpoint in safetensors, or lacks weights.
        """
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        folder, name = checkpoint.folder, checkpoint.name
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if not any("ForImageClassification" in architecture for architecture in config.architectures or []):
                raise StartupError(f"{name} is no image-classification checkpoint: it is {config.architectures}.")
            if config.problem_type == "regression":
                raise StartupError(f"{name} is a regression model: it gives numbers, not labels.")
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
            model, report = AutoModelForImageClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except StartupError:
            raise
        except Exception as error:
            # A last line of defence: a folder can hold anything, and transformers raises anything.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise StartupError(f"{name} is no image-classification checkpoint: {reason}") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise StartupError(f"{name} lacks weights that its config.json promises: it would answer at random.")
        return cls(checkpoint, model, processor)

    def preprocess(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Turn upright RGB images into the model's input, (B, 3, H, W) float32 on the CPU."""
        inputs = self._processor(images=list(images), return_tensors="pt")
        pixels: torch.Tensor = inputs["pixel_values"]
        return pixels

    @torch.inference_mode()
    def classify(self, pixels: torch.Tensor) -> list[list[Prediction]]:
        """Give the best labels, best first, of each image of a batch (B, 3, H, W)."""
        logits = self._model(pixel_values=pixels.to(self._device)).logits.float()
        scores = logits.softmax(-1) if self._is_exclusive else logits.sigmoid()
        confidences, indices = scores.topk(min(TOP_K, len(self._labels)))
        return [
            [
                Prediction(label=self._labels[index], confidence=confidence)
                for confidence, index in zip(*row, strict=True)
            ]
            for row in zip(confidences.tolist(), indices.tolist(), strict=True)
        ]

    def warm_up(self) -> ModelAnnouncement:
        """Run the model until its first calls are behind it, and say what it is and how fast."""
        image = Image.new("RGB", (64, 64))
        for _ in range(3):
            started_s = time.perf_counter()
            self.classify(self.preprocess([image]))
            inference_ms = (time.perf_counter() - started_s) * 1000
        return ModelAnnouncement(
            model=self.ref,
            labels=self._labels,
            accuracy=self._checkpoint.accuracy,
            device=torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            dtype="float32",
            inference_ms=round(inference_ms, 2),
        )
