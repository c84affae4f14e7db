"""Loads the model of a checkpoint, whatever its task is."""

from importlib.util import find_spec

from image_analysis_common.models import EXACT
from image_analysis_common.startup import StartupError
from image_analysis_worker.engines.checkpoint import Checkpoint
from image_analysis_worker.engines.engine import Model
from image_analysis_worker.engines.load import AUTO, load_engine, open_inputs
from image_analysis_worker.engines.zero_shot import ZeroShotEngine
from image_analysis_worker.settings import WorkerSettings


def load_served(checkpoint: Checkpoint, settings: WorkerSettings) -> Model:
    """Load a checkpoint's model on the engine that the settings allow.

    Raises:
        StartupError: it cannot be loaded, or not with these settings.
    """
    if checkpoint.task == "image-classification":
        return load_engine(checkpoint, settings)
    return load_zero_shot(checkpoint, settings)


def load_zero_shot(checkpoint: Checkpoint, settings: WorkerSettings) -> ZeroShotEngine:
    """Load a zero-shot checkpoint on torch, in float32 unless `DTYPE` is bfloat16.

    Raises:
        StartupError: it cannot be loaded, or not with these settings.
    """
    name = checkpoint.name
    if settings.engine not in (AUTO, "torch") or settings.dtype == "int8":
        raise StartupError(
            f"{name} is a zero-shot model, which runs on torch in float32 or bfloat16 only: "
            f"not with ENGINE={settings.engine} and DTYPE={settings.dtype}."
        )
    if not find_spec("torch"):
        raise StartupError(f"{name} is a zero-shot model, which needs torch: install image-analysis-worker[torch].")
    if not checkpoint.has_weights:
        raise StartupError(f"{name} is a zero-shot model without safetensors: other weights are not loaded.")
    if not checkpoint.has_tokenizer:
        raise StartupError(f"{name} is a zero-shot model without a tokenizer, such as tokenizer.json.")
    from image_analysis_worker.engines.towers import TorchTowers

    inputs = open_inputs(checkpoint, settings)
    precision = EXACT if settings.dtype == AUTO else settings.dtype
    return ZeroShotEngine(
        inputs,
        TorchTowers(checkpoint, inputs.decoders.preparation, precision),
        max_batch_size=settings.max_batch_size,
        # The image of the job also needs time, before the watchdog ends the whole worker.
        labels_timeout_s=settings.job_timeout_seconds / 2,
    )
