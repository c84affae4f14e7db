"""The health calls: whether the process lives, and whether it can do its work."""

from fastapi import status

from image_analysis_api.openapi.document import describe_errors
from image_analysis_api.responses import Health, Readiness
from image_analysis_api.routes.parameters import FoundServices
from image_analysis_api.routes.router import HeadRouter
from image_analysis_common.errors import NoWorker, StoreUnavailable

router = HeadRouter(tags=["health"])


@router.get("/health", summary="Whether the service is up")
@router.get("/health/live", name="read_liveness", summary="Whether the process runs")
async def read_health() -> Health:
    """Answer 200 while the process runs; depends on nothing else."""
    return Health()


@router.get(
    "/health/ready",
    summary="Whether the service is ready",
    responses={
        status.HTTP_200_OK: {"description": "Redis answers and there is a worker"},
        **describe_errors(StoreUnavailable, NoWorker),
    },
)
async def read_readiness(services: FoundServices) -> Readiness:
    """Answer 200 while Redis answers and a worker of the default model has reported in the last 10 seconds."""
    await services.store.check_worker()
    return Readiness(model=services.settings.model_name)
