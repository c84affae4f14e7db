"""Runs a checkpoint of transformers on torch; only this package's `convert` imports torch, too."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageClassification
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as transformers_logging

from image_analysis_common.startup import StartupError
from image_analysis_worker.decoding.preparation import Preparation
from image_analysis_worker.decoding.timm import is_timm
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.cores import count_usable_cores, has_bfloat16
from image_analysis_worker.engines.engine import Network, find_reason
from image_analysis_worker.engines.labels import check_timm

CPU_BATCH_SIZE = 8
GPU_BATCH_SIZE = 32
"""Where throughput stops growing. On 2 CPU cores the bundled model did 189, 260, 312, 350, 287 and 300 images/s in
batches of 1, 2, 4, 8, 16 and 32; the size for GPUs is not measured yet."""

LAYOUT = torch.channels_last
"""How convolutions like their images: eight at a time, ResNet-50 takes 6 % less time so, MobileNetV2 22 % less."""

LARGE_PARAMETERS = 10_000_000
"""For smaller models, the rest of a job takes longer than the model, so half the precision gains nothing."""


class Tensors:
    """Makes a model's tensors of batches, on the GPU, if there is one, or on the CPU."""

    def __init__(self, preparation: Preparation, precision: str) -> None:
        torch.set_num_threads(count_usable_cores())
        # By default, a GPU's convolutions round float32 to TF32, with 10 bits: other answers under the same name.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype: torch.dtype = getattr(torch, precision)
        is_gpu = self.device.type == "cuda"
        self.device_name = torch.cuda.get_device_name() if is_gpu else "cpu"
        self.batch_size = GPU_BATCH_SIZE if is_gpu else CPU_BATCH_SIZE
        self._normalization: tuple[torch.Tensor, torch.Tensor] | None = None
        if preparation.scale is not None and preparation.offset is not None:
            scale, offset = (
                torch.tensor(values, dtype=torch.float32, device=self.device).view(1, -1, 1, 1)
                for values in (preparation.scale, preparation.offset)
            )
            self._normalization = scale, offset

    def make(self, pixels: NDArray[Any]) -> torch.Tensor:
        """Copy a batch to the device and normalize it."""
        values = _copy(torch.from_numpy(pixels), self.device)
        if self._normalization is not None:
            scale, offset = self._normalization
            values = values.float() * scale + offset
        return values.to(self.dtype, memory_format=LAYOUT)


Passage: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""What entered a layer in the last batch, and what came out of it."""

MAX_CLASSIFIERS = 2
"""The most layers whose outputs make the logits: a distilled model's logits are the mean of two."""


class TorchNetwork:
    """A model of transformers on the GPU, if there is one, or on the CPU."""

    engine = "torch"

    def __init__(
        self, model: PreTrainedModel, preparation: Preparation, precision: str, *, compiler: str | None = None
    ) -> None:
        """Move a model to its device; `compiler` is a backend of `torch.compile`."""
        self._tensors = Tensors(preparation, precision)
        network: torch.nn.Module = model.eval()
        network.to(self._tensors.device, self._tensors.dtype, memory_format=LAYOUT)  # type: ignore[call-overload]
        self._passages: list[Passage] = []
        self._classifiers: int | None = None
        for layer in network.modules():
            if _outputs(layer) == model.config.num_labels:
                layer.register_forward_hook(self._note)
        # Without `dynamic`, a batch of a new size would be compiled while jobs wait.
        self._model: Callable[..., Any] = (
            torch.compile(network, backend=compiler, dynamic=True) if compiler else network
        )
        self.precision = precision
        self.parameters = model.num_parameters()
        self.device = self._tensors.device_name
        self.batch_size = self._tensors.batch_size

    def run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the logits of a batch."""
        logits, _ = self._infer(pixels)
        return _fetch(logits)

    def embed(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the logits of a batch, and what enters the classifier; the first batch shows which layers it is."""
        logits, passages = self._infer(pixels)
        if self._classifiers is None:
            self._classifiers = _count_classifiers(passages, logits)
        entered = [values.reshape(len(logits), -1) for values, _ in passages[len(passages) - self._classifiers :]]
        return _fetch(logits), _fetch(torch.cat(entered, dim=1) if entered else logits[:, :0])

    @torch.inference_mode()
    def _infer(self, pixels: NDArray[Any]) -> tuple[torch.Tensor, list[Passage]]:
        self._passages.clear()
        logits: torch.Tensor = self._model(pixel_values=self._tensors.make(pixels)).logits
        return logits, self._passages

    def _note(self, _layer: torch.nn.Module, entered: Sequence[torch.Tensor], output: torch.Tensor) -> None:
        self._passages.append((entered[0], output))
        # In a model with as many channels as labels, many layers look like a classifier.
        del self._passages[:-MAX_CLASSIFIERS]


def _outputs(layer: torch.nn.Module) -> int:
    """Return how many outputs a layer has; 0 if it is of a kind that no classifier is."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, torch.nn.Conv2d) else 0


def _count_classifiers(passages: Sequence[Passage], logits: torch.Tensor) -> int:
    """Return the number of layers, the last ones, whose mean output is the logits; 0 if something else makes them."""
    total = torch.zeros_like(logits)
    for count, (_, output) in enumerate(reversed(passages), start=1):
        if output.numel() != logits.numel():
            break
        total = total + output.reshape(logits.shape)
        if torch.equal(total / count, logits):
            return count
    return 0


def _fetch(values: torch.Tensor) -> NDArray[np.float32]:
    fetched: NDArray[np.float32] = values.float().cpu().numpy()
    return fetched


def _copy(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a batch to its device; to a GPU, the program goes on while the copy runs, which needs pinned memory."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def load_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """Load a checkpoint's model in float32.

    Raises:
        StartupError: it is not an image-classification checkpoint in safetensors, lacks weights, or needs timm.
    """
    if is_timm(checkpoint.config):
        check_timm(checkpoint.name)
    refusal = f"{checkpoint.name} is not an image-classification checkpoint"
    return load_pretrained(AutoModelForImageClassification, checkpoint, refusal)


def load_pretrained(kind: Any, checkpoint: Checkpoint, refusal: str) -> PreTrainedModel:
    """Load a checkpoint's weights in float32 by one of transformers' classes.

    Raises:
        StartupError: it lacks weights, or transformers does not load it: `refusal` and the reason.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with a reason
        )
    except Exception as error:
        # The last line of defense: a folder can hold anything, and transformers can raise anything.
        raise StartupError(f"{refusal}: {find_reason(error)}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise StartupError(f"{checkpoint.name} lacks weights that its config.json promises: it would answer at random.")
    loaded: PreTrainedModel = model
    return loaded


def prefers_bfloat16(network: Network) -> bool:
    """Return whether bfloat16 is faster: the hardware multiplies it, and the model is large (ViT-base: 2-3 times)."""
    if not isinstance(network, TorchNetwork) or network.parameters < LARGE_PARAMETERS:
        return False
    return torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else has_bfloat16()
