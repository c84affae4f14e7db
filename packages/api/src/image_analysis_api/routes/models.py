"""The calls that list the models."""

from typing import Annotated

from fastapi import Depends, Path, status

from image_analysis_api.openapi.document import describe_errors
from image_analysis_api.responses import ModelDetails, ModelList
from image_analysis_api.routes.parameters import Admit, FoundServices
from image_analysis_api.routes.router import HeadRouter
from image_analysis_common.errors import ModelNotFound, StoreUnavailable
from image_analysis_common.settings import BUNDLED_MODEL

router = HeadRouter(tags=["models"], dependencies=[Depends(Admit(cost=0))])


@router.get(
    "/models",
    summary="List the models",
    responses={
        status.HTTP_200_OK: {"description": "Every model that a worker has served in the last day"},
        **describe_errors(StoreUnavailable),
    },
)
async def list_models(services: FoundServices) -> ModelList:
    """Get the models that jobs can ask for, with their live workers and queue depths."""
    return ModelList(models=[*await services.model_registry.find_all()])


@router.get(
    "/models/{model_id:path}",
    summary="Get a model",
    responses={
        status.HTTP_200_OK: {"description": "The model, with its labels"},
        **describe_errors(ModelNotFound, StoreUnavailable),
    },
)
async def read_model(
    model_id: Annotated[str, Path(description="The ID from GET /models, including slashes", examples=[BUNDLED_MODEL])],
    services: FoundServices,
) -> ModelDetails:
    """Get one model with its labels."""
    return await services.model_registry.find(model_id)
