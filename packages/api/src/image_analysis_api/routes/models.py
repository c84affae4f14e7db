"""The calls that list the models."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request, status

from image_analysis_api.access.admission import Admit
from image_analysis_api.jobs.model_registry import Catalog
from image_analysis_api.openapi.document import describe_errors
from image_analysis_api.responses import ModelDetails, ModelList
from image_analysis_common.errors import ModelNotFound, StoreUnavailable
from image_analysis_common.settings import BUNDLED_MODEL

router = APIRouter(tags=["models"], dependencies=[Depends(Admit(cost=0))])


@router.get(
    "/models",
    summary="List the models",
    responses={
        status.HTTP_200_OK: {"description": "Every model that a worker has served in the last day"},
        **describe_errors(StoreUnavailable),
    },
)
async def list_models(request: Request) -> ModelList:
    """Get the models that jobs can ask for, with their live workers and queue depths."""
    return ModelList(models=[*await cast(Catalog, request.app.state.catalog).find_all()])


@router.get(
    "/models/{model_id:path}",
    summary="Get a model",
    responses={
        status.HTTP_200_OK: {"description": "The model, with its labels"},
        **describe_errors(ModelNotFound, StoreUnavailable),
    },
)
async def read_model(
    request: Request,
    model_id: Annotated[str, Path(description="The ID from GET /models, including slashes", examples=[BUNDLED_MODEL])],
) -> ModelDetails:
    """Get one model with its labels."""
    return await cast(Catalog, request.app.state.catalog).find(model_id)
