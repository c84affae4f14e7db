"""Settings of the worker, from the environment alone."""

from image_analysis_common.settings import SharedSettings


class WorkerSettings(SharedSettings):
    """What the worker reads besides the shared settings."""

    model_revision: str | None = None
