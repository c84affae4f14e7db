"""Builds the parts of one API process from the settings; routes get them through one dependency."""

from dataclasses import dataclass
from typing import Self

from redis.asyncio import Redis

from image_analysis_api.access.admission import Admission
from image_analysis_api.access.idempotency import Idempotency
from image_analysis_api.access.rate_limit import RateLimiter
from image_analysis_api.intake.image import ImageReader
from image_analysis_api.jobs.acceptance import Acceptance
from image_analysis_api.jobs.analyses import Analyses
from image_analysis_api.jobs.batches import Batches
from image_analysis_api.jobs.cancellation import Cancellation
from image_analysis_api.jobs.classifier_records import ClassifierRecords
from image_analysis_api.jobs.listing import Listing
from image_analysis_api.jobs.model_registry import ModelRegistry
from image_analysis_api.jobs.position import Positions
from image_analysis_api.jobs.queue import JobQueue
from image_analysis_api.jobs.records import JobRecords
from image_analysis_api.jobs.result_cache import ResultCache
from image_analysis_api.jobs.sweep import Sweep
from image_analysis_api.jobs.training import TrainingParts, Trainings
from image_analysis_api.outbound.client import Destinations, OutboundClient
from image_analysis_api.outbound.fetcher import Fetcher
from image_analysis_api.outbound.resolver import Resolver
from image_analysis_api.outbound.webhook_urls import WebhookUrls
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store.client import connect
from image_analysis_api.store.replication import Replication
from image_analysis_api.waiting.room import WaitingRoom

IDEMPOTENCY_SLACK_S = 10
"""Time for a submission in addition to its fetch; after that, its claim of an Idempotency-Key expires."""


@dataclass(frozen=True)
class Services:
    """The parts that the routes use."""

    settings: ApiSettings
    redis: Redis
    fetcher: Fetcher
    store: JobRecords
    admission: Admission
    idempotency: Idempotency
    model_registry: ModelRegistry
    analyses: Analyses
    batches: Batches
    classifiers: ClassifierRecords
    trainings: Trainings
    cancellation: Cancellation
    listing: Listing
    waiting_room: WaitingRoom
    sweep: Sweep

    @classmethod
    def build(cls, settings: ApiSettings, *, redis: Redis | None = None, fetcher: Fetcher | None = None) -> Self:
        """Build the parts that are not given. Nothing connects before the first request."""
        redis = redis or connect(settings.redis_dsn, settings.sentinels)
        destinations = Destinations.of(settings)
        fetcher = fetcher or _make_fetcher(settings, destinations)
        store = JobRecords(redis, settings.model_name)
        limiter = RateLimiter(
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
        model_registry = ModelRegistry(redis, settings.model_name, queue_of)
        positions, classifiers = Positions(redis), ClassifierRecords(redis)
        result_cache = ResultCache(redis, settings.model_name)
        webhook_urls = WebhookUrls(redis, destinations, is_enabled=bool(settings.webhook_secret))
        replication = Replication(redis, settings.min_replicas_ack)
        acceptance = Acceptance(redis, result_cache, model_registry, queue_of, webhook_urls, replication)
        image_reader = ImageReader(
            fetcher,
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            is_checked=result_cache.is_popular,
        )
        return cls(
            settings=settings,
            redis=redis,
            fetcher=fetcher,
            store=store,
            admission=Admission(settings.api_keys, limiter),
            idempotency=Idempotency(redis, busy_s=settings.fetch_timeout_seconds + IDEMPOTENCY_SLACK_S),
            model_registry=model_registry,
            analyses=Analyses(image_reader, acceptance, store, positions, classifiers),
            batches=Batches(image_reader, acceptance, store, positions, classifiers, max_bytes=settings.batch_bytes),
            classifiers=classifiers,
            trainings=Trainings(
                TrainingParts(redis, image_reader, acceptance, model_registry, classifiers),
                max_bytes=settings.batch_bytes,
                max_classifiers=settings.max_classifiers,
                max_classifiers_bytes=settings.max_classifiers_bytes,
            ),
            cancellation=Cancellation(redis),
            listing=Listing(redis),
            waiting_room=WaitingRoom(
                redis, store, max_waiters=settings.max_waiters, max_per_client=settings.max_waiters_per_client
            ),
            sweep=Sweep(redis),
        )

    async def aclose(self) -> None:
        """End every wait and close every connection."""
        await self.waiting_room.aclose()
        await self.fetcher.aclose()
        await self.redis.aclose()


def _make_fetcher(settings: ApiSettings, destinations: Destinations) -> Fetcher:
    return Fetcher(
        OutboundClient(destinations, Resolver(settings.fetch_dns_servers)),
        max_bytes=settings.max_image_bytes,
        timeout_s=settings.fetch_timeout_seconds,
        max_concurrent=settings.fetch_max_concurrent,
        user_agent=settings.fetch_user_agent,
    )
