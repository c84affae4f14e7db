"""The Python client of the Image Analysis API."""

from image_analysis_client.async_client import AsyncClient, AsyncJob
from image_analysis_client.client import Client, Job
from image_analysis_client.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    Conflict,
    ExamplesFailed,
    ImageAnalysisError,
    InvalidWebhook,
    JobCancelled,
    JobFailed,
    NotFound,
    NotNow,
    RateLimited,
    ServiceUnreachable,
    Unavailable,
    WaitTimeout,
)
from image_analysis_client.responses import AnalysisStatus, Classifier, ModelDetails, ModelStatus
from image_analysis_client.values import Examples, Options, Outcome, Source
from image_analysis_client.webhooks import verify_webhook
from image_analysis_common.classifiers import Confusion
from image_analysis_common.models import AnalysisResult, JobStatus, ModelRef, Prediction

__all__ = [
    "APIError",
    "AnalysisResult",
    "AnalysisStatus",
    "AsyncClient",
    "AsyncJob",
    "AuthenticationError",
    "BadRequest",
    "Classifier",
    "Client",
    "Conflict",
    "Confusion",
    "Examples",
    "ExamplesFailed",
    "ImageAnalysisError",
    "InvalidWebhook",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobStatus",
    "ModelDetails",
    "ModelRef",
    "ModelStatus",
    "NotFound",
    "NotNow",
    "Options",
    "Outcome",
    "Prediction",
    "RateLimited",
    "ServiceUnreachable",
    "Source",
    "Unavailable",
    "WaitTimeout",
    "verify_webhook",
]
