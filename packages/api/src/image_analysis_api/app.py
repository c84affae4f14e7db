"""The application: the routes and middleware around its services."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Scope

from image_analysis_api.access.admission import caller
from image_analysis_api.intake.image import bound_pillow
from image_analysis_api.openapi import document, webhooks
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.routes import analyses, batches, classifiers, events, health, inference, models, page
from image_analysis_api.routes.direct import DirectCalls
from image_analysis_api.server import problems
from image_analysis_api.server.body_budget import BodyBudget
from image_analysis_api.server.proxies import ProxyHeaders
from image_analysis_api.server.request_context import RequestContext
from image_analysis_api.services import Services
from image_analysis_api.settings import ApiSettings
from image_analysis_common import tracing

DESCRIPTION = """Classify images with your own models, asynchronously.

Submit an image, get a job ID at once, then ask for the result. Every error is a problem document (RFC 9457) with a
stable `code`; quote its `request_id` when you report it.
"""


def create_app(settings: ApiSettings, *, redis: Redis | None = None, fetcher: Fetcher | None = None) -> FastAPI:
    """Build the API. Nothing connects before the first request."""
    services = Services.build(settings, redis=redis, fetcher=fetcher)
    bound_pillow(settings.max_image_pixels)

    @asynccontextmanager
    async def close_services(_app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(services.sweep.run())
        yield
        sweeping.cancel()
        await asyncio.wait([sweeping])
        await services.aclose()

    app = FastAPIOffline(  # the pages of the documentation load nothing from other hosts
        title=settings.api_title,
        version=settings.api_version,
        description=DESCRIPTION,
        lifespan=close_services,
        # A redirect would name the host of the request, which the client chose.
        redirect_slashes=False,
        # Generated clients name their functions after it.
        generate_unique_id_function=lambda route: route.name,
        # Without traces, FastAPI would look for them in the environment at every request.
        telemetry={
            "exclude": lambda scope: scope["path"].startswith("/health"),
            **dict.fromkeys(("tracing", "metrics", "logs"), tracing.is_wanted()),
        },
    )
    for route in app.routes:
        if isinstance(route, APIRoute):  # a page of the documentation, which FastAPI's own route answers to GET alone
            route.methods = {"GET", "HEAD"}
    app.state.services = services
    for part in (analyses, batches, classifiers, models, inference, events, health, page):
        app.include_router(part.router)
    app.webhooks.include_router(webhooks.router)
    problems.install(app)
    document.install(app, has_keys=bool(settings.api_keys))
    app.middleware_stack = _surround(app.build_middleware_stack(), services)
    return app


def _surround(app: ASGIApp, services: Services) -> ASGIApp:
    """Put middleware around FastAPI's own, which `DirectCalls` leaves out; the innermost comes first.

    Answers that `RequestContext` gives after a crash get CORS headers too.
    """
    settings, admission = services.settings, services.admission

    def client_of(scope: Scope) -> str:
        request = HTTPConnection(scope)
        return caller(request, admission.find_owner(request))

    app = RequestContext(BodyBudget(DirectCalls(app), max_bytes=settings.max_bodies_bytes, client_of=client_of))
    if settings.cors_allow_origins:
        # API keys are sent in a header, never in a cookie: no origin needs credentials.
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_allow_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "Idempotency-Key",
                "Last-Event-ID",
                "Prefer",
                "User-Agent",  # Hugging Face's client sets it, which Firefox lets it do
                "X-API-Key",
                "X-Request-ID",
            ],
            expose_headers=[
                "Link",
                "Location",
                "Preference-Applied",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
            ],
        )
    if settings.trusted_proxies or settings.root_path:
        app = ProxyHeaders(app, settings)
    return app
