"""The application: the routes and middleware around its services."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from image_analysis_api.intake.image import bound_pillow
from image_analysis_api.openapi import document, webhooks
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.routes import analyses, batches, events, health, models, page
from image_analysis_api.server import problems
from image_analysis_api.server.body_budget import BodyBudget
from image_analysis_api.server.request_context import RequestContext
from image_analysis_api.services import Services
from image_analysis_api.settings import ApiSettings

DESCRIPTION = """Classify images with your own models, asynchronously.

Submit an image, get a job ID at once, then ask for the result. Every error is a problem document (RFC 9457) with a
stable `code`; quote its `request_id` when you report it.
"""


def create_app(settings: ApiSettings, *, redis: Redis | None = None, fetcher: Fetcher | None = None) -> FastAPI:
    """Build the API; it connects to nothing before it serves."""
    services = Services.build(settings, redis=redis, fetcher=fetcher)
    bound_pillow()

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
        # A redirect would name a host that the client chose.
        redirect_slashes=False,
        # What generated clients name their functions after.
        generate_unique_id_function=lambda route: route.name,
        telemetry={"exclude": lambda scope: scope["path"].startswith("/health")},
    )
    app.state.services = services
    for router in (analyses.router, batches.router, models.router, events.router, health.router, page.router):
        app.include_router(router)
    app.webhooks.include_router(webhooks.router)
    _add_middleware(app, settings)
    problems.install(app)
    document.install(app, has_keys=bool(settings.api_keys))
    return app


def _add_middleware(app: FastAPI, settings: ApiSettings) -> None:
    """Surround the routes, innermost first: even what `RequestContext` makes of a crash passes through CORS."""
    app.add_middleware(BodyBudget, max_bytes=settings.max_bodies_bytes)
    app.add_middleware(RequestContext)
    if settings.cors_allow_origins:
        # Keys travel in a header of the script's own, never in a cookie: no origin is allowed credentials.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allow_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "Authorization",
                "Idempotency-Key",
                "Last-Event-ID",
                "Prefer",
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
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[str(network) for network in settings.trusted_proxies])
