"""Runs an image-classification model of transformers on torch; the only module that imports either."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from io import BytesIO

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.configuration_utils import PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as transformers_logging

from image_analysis_common.models import TOP_K, ModelAnnouncement, ModelRef, Prediction
from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.decode import PREPROCESSING_VERSION
from image_analysis_worker.decoding.decoder import Decoder, Decoders, Pixels
from image_analysis_worker.decoding.process import MAX_INPUT_GROWTH, Recipe
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.cores import count_usable_cores, has_cpu_flag
from image_analysis_worker.settings import WorkerSettings

CPU_BATCH_SIZE = 8
GPU_BATCH_SIZE = 32
"""Where throughput stops growing. On 2 CPU cores the bundled model did 189, 260, 312, 350, 287 and 300 images/s in
batches of 1, 2, 4, 8, 16 and 32; the size for GPUs is not measured yet."""

USUAL_INPUT_PX = 224
"""Used if neither the configuration nor the image processor states an input size."""

LARGE_PARAMETERS = 10_000_000
"""For smaller models, the rest of a job takes longer than the model, so half the precision gains nothing."""


class TorchEngine:
    """A checkpoint on its device, ready for images."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: PreTrainedModel,
        decoders: Decoders,
        settings: WorkerSettings,
    ) -> None:
        torch.set_num_threads(count_usable_cores())
        self._checkpoint = checkpoint
        self._decoders = decoders
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = _choose_dtype(settings.dtype, self._device, model.num_parameters())
        self._model: torch.nn.Module = model.eval()
        self._model.to(self._device, self._dtype)
        self._max_batch_size = settings.max_batch_size or (
            GPU_BATCH_SIZE if self._device.type == "cuda" else CPU_BATCH_SIZE
        )
        config = model.config
        self._labels = [label for _, label in sorted((config.id2label or {}).items())]
        # As in transformers' pipeline: softmax if the labels exclude each other, a sigmoid for each label otherwise.
        self._is_exclusive = config.problem_type != "multi_label_classification" and len(self._labels) > 1
        self.ref = ModelRef(id=checkpoint.name, revision=checkpoint.revision, preprocessing=PREPROCESSING_VERSION)

    @classmethod
    def load(cls, checkpoint: Checkpoint, settings: WorkerSettings) -> "TorchEngine":
        """Load a checkpoint.

        Raises:
            StartupError: it is not an image-classification checkpoint in safetensors, or lacks weights.
        """
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        folder, name = checkpoint.folder, checkpoint.name
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if not any("ForImageClassification" in architecture for architecture in config.architectures or []):
                raise StartupError(f"{name} is not an image-classification checkpoint: it is {config.architectures}.")
            if config.problem_type == "regression":
                raise StartupError(f"{name} is a regression model: it gives numbers, not labels.")
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
            decoders = Decoders(_make_recipe(processor, config, settings))
            decoders.start()
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
            # The last line of defense: a folder can hold anything, and transformers can raise anything.
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise StartupError(f"{name} is not an image-classification checkpoint: {reason}") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise StartupError(f"{name} lacks weights that its config.json promises: it would answer at random.")
        return cls(checkpoint, model, decoders, settings)

    def open_decoder(self) -> Decoder:
        """Make a decoder, which makes this model's inputs from images; for one thread."""
        return self._decoders.open()

    @torch.inference_mode()
    def classify(self, inputs: Sequence[Pixels], top_k: int = TOP_K) -> list[list[Prediction]]:
        """Return the `top_k` best predictions of each input (3, H, W), best first, or all if there are fewer."""
        tensors = [torch.frombuffer(pixels.values, dtype=torch.float32).view(pixels.shape) for pixels in inputs]
        pixels = torch.stack(tensors).to(self._device, self._dtype)
        logits = self._model(pixel_values=pixels).logits.float()
        scores = logits.softmax(-1) if self._is_exclusive else logits.sigmoid()
        confidences, indices = scores.topk(min(top_k, len(self._labels)))
        return [
            [
                Prediction(label=self._labels[index], confidence=confidence)
                for confidence, index in zip(*row, strict=True)
            ]
            for row in zip(confidences.tolist(), indices.tolist(), strict=True)
        ]

    def warm_up(self) -> ModelAnnouncement:
        """Run the model until its first, slow calls are done, and describe it and its speed.

        Raises:
            StartupError: its image processor does not work.
        """
        image = BytesIO()
        Image.new("RGB", (64, 64)).save(image, "BMP")
        with closing(self.open_decoder()) as decoder:
            blank = decoder.decode(image.getvalue())
        self.classify([blank] * self._max_batch_size)
        for _ in range(3):
            started_s = time.perf_counter()
            self.classify([blank])
            inference_ms = (time.perf_counter() - started_s) * 1000
        return ModelAnnouncement(
            model=self.ref,
            labels=self._labels,
            accuracy=self._checkpoint.accuracy,
            device=torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            dtype=str(self._dtype).removeprefix("torch."),
            max_batch_size=self._max_batch_size,
            inference_ms=round(inference_ms, 2),
        )


def _make_recipe(processor: BaseImageProcessor, config: PreTrainedConfig, settings: WorkerSettings) -> Recipe:
    """Describe how to make inputs, for a process that has no torch."""
    sizes, crops = (
        [side for side in dict(getattr(processor, name, None) or {}).values() if side] for name in ("size", "crop_size")
    )
    image_size = getattr(getattr(config, "vision_config", config), "image_size", None) or 0
    sides = sizes + crops + (list(image_size) if isinstance(image_size, list | tuple) else [image_size])
    largest_px = max(sides) or USUAL_INPUT_PX
    return Recipe(
        module=type(processor).__module__,
        class_name=type(processor).__name__,
        parameters=json.loads(processor.to_json_string()),
        input_px=max(sizes or [largest_px]),
        max_input_pixels=MAX_INPUT_GROWTH * largest_px**2,
        max_image_pixels=settings.max_image_pixels,
        timeout_s=settings.decode_timeout_seconds,
    )


def _choose_dtype(wanted: str, device: torch.device, parameters: int) -> torch.dtype:
    """For `auto`, choose bfloat16 if the hardware multiplies it and the model is large: 2-3 times for ViT-base."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = has_cpu_flag("avx512_bf16", "amx_bf16")
    return torch.bfloat16 if has_bfloat16 and parameters >= LARGE_PARAMETERS else torch.float32
