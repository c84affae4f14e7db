"""Settings of the worker, from environment variables only."""

from typing import Literal

from pydantic import Field

from image_analysis_common.settings import MAX_SECONDS, SharedSettings


class WorkerSettings(SharedSettings):
    """The settings of the worker."""

    model_revision: str | None = None
    engine: Literal["auto", "torch", "openvino"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    min_agreement: float = Field(0.995, ge=0, le=1)
    torch_compile: bool = False
    reduced_decoding: bool = True
    max_batch_size: int | None = Field(None, ge=1, le=256)
    batch_wait_ms: float = Field(0, ge=0, le=1000)
    decode_timeout_seconds: float = Field(10, gt=0, le=MAX_SECONDS)
    worker_metrics_port: int | None = Field(None, ge=1, le=65535)
