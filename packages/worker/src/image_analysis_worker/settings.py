"""Settings of the worker, from environment variables only."""

from typing import Literal

from pydantic import Field

from image_analysis_common.settings import SharedSettings


class WorkerSettings(SharedSettings):
    """The settings of the worker."""

    model_revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    max_batch_size: int | None = Field(None, ge=1, le=256)
    batch_wait_ms: float = Field(0, ge=0, le=1000)
    decode_timeout_seconds: float = Field(10, gt=0)
    worker_metrics_port: int | None = Field(None, ge=1, le=65535)
