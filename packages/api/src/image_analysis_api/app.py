"""The application: its parts put together, given or made from the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from image_analysis_api.access.idempotency import Idempotency
from image_analysis_api.access.rate_limit import RateLimiter
from image_analysis_api.intake.reading import bound_pillow
from image_analysis_api.jobs.batches import Batches
from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.listing import Listing
from image_analysis_api.jobs.model_registry import Catalog
from image_analysis_api.jobs.position import Places
from image_analysis_api.jobs.queue import JobQueue
from image_analysis_api.jobs.submit import Analysis
from image_analysis_api.openapi import document as openapi
from image_analysis_api.openapi import webhooks as openapi_webhooks
from image_analysis_api.outbound.client import Destinations, Egress
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.outbound.resolver import Resolver
from image_analysis_api.outbound.webhook_urls import Receivers
from image_analysis_api.routes import analyses as routes
from image_analysis_api.routes import batches as batch_routes
from image_analysis_api.routes import events as streams
from image_analysis_api.routes import health, models
from image_analysis_api.routes import owned_jobs as jobs
from image_analysis_api.server import problems
from image_analysis_api.server.body_budget import BoundBodies
from image_analysis_api.server.request_context import RequestContext
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store import client as store
from image_analysis_api.waiting.room import WaitingRoom

DESCRIPTION = """Classify images with your own models, asynchronously.

Submit an image, get a job ID at once, then ask for the result. Every error is a problem document (RFC 9457) with a
stable `code`; quote its `request_id` when you report it.
"""


IDEMPOTENCY_SLACK_S = 10
"""What taking in a request can last beside the fetch of its image; its claim on an Idempotency-Key lapses then."""


def create_app(settings: ApiSettings, *, redis: Redis | None = None, fetcher: Fetcher | None = None) -> FastAPI:
    """Build the API; it connects to nothing before the first request."""
    redis = redis or store.connect(settings.redis_dsn)
    destinations = Destinations.of(settings)
    fetcher = fetcher or Fetcher(
        Egress(destinations, Resolver(settings.fetch_dns_servers)),
        max_bytes=settings.max_image_bytes,
        timeout_s=settings.fetch_timeout_seconds,
        max_concurrent=settings.fetch_max_concurrent,
    )
    bound_pillow()

    @asynccontextmanager
    async def close_parts(app: FastAPI) -> AsyncIterator[None]:
        yield
        await app.state.waiting_room.aclose()
        await fetcher.aclose()
        await redis.aclose()

    app = FastAPIOffline(  # the pages of the documentation load nothing from other hosts
        title=settings.api_title,
        version=settings.api_version,
        description=DESCRIPTION,
        lifespan=close_parts,
        # A redirect would name a host that the client chose.
        redirect_slashes=False,
        # What generated clients name their functions after.
        generate_unique_id_function=lambda route: route.name,
        telemetry={"exclude": lambda scope: scope["path"].startswith("/health")},
    )
    app.state.settings = settings
    app.state.store = store.Store(redis, settings.model_name)
    app.state.cancellation = Cancellation(redis)
    app.state.listing = Listing(redis)
    app.state.waiting_room = WaitingRoom(
        redis, app.state.store, max_waiters=settings.max_waiters, max_per_client=settings.max_waiters_per_client
    )
    app.state.limiter = RateLimiter(
        redis,
        max_requests=settings.rate_limit_max_requests,
        interval_s=settings.rate_limit_interval_seconds,
        is_fail_open=settings.rate_limit_fail_open,
    )
    queue_of = JobQueue.factory(
        redis,
        settings.model_name,
        job_timeout_s=settings.job_timeout_seconds,
        max_depth=settings.max_queue_depth,
        max_bytes=settings.max_queue_bytes,
    )
    app.state.catalog = Catalog(redis, settings.model_name, queue_of)
    places = Places(redis)
    receivers = Receivers(redis, destinations, is_enabled=bool(settings.webhook_secret))
    app.state.analysis = Analysis(settings, app.state.store, app.state.catalog, queue_of, fetcher, places, receivers)
    app.state.batches = Batches(
        redis,
        app.state.store,
        app.state.catalog,
        queue_of,
        app.state.analysis,
        places,
        max_bytes=settings.batch_bytes,
    )
    app.state.idempotency = Idempotency(redis, busy_s=settings.fetch_timeout_seconds + IDEMPOTENCY_SLACK_S)
    app.include_router(routes.router)
    app.include_router(batch_routes.router)
    app.include_router(models.router)
    app.include_router(streams.router)
    app.include_router(jobs.router)
    app.include_router(health.router)
    app.webhooks.include_router(openapi_webhooks.router)
    _add_middleware(app, settings)
    problems.install(app)
    openapi.install(app, has_keys=bool(settings.api_keys))
    return app


def _add_middleware(app: FastAPI, settings: ApiSettings) -> None:
    """Surround the routes, innermost first: even what `RequestContext` makes of a crash passes through CORS."""
    app.add_middleware(BoundBodies, max_bytes=settings.max_bodies_bytes)
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
