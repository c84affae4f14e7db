"""Checks a webhook URL when a job is submitted."""

from redis.asyncio import Redis

from image_analysis_api.outbound.client import Destinations
from image_analysis_api.outbound.urls import WebUrl
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys
from image_analysis_common.errors import TooManyDeliveries, UrlRefused, WebhooksDisabled

MAX_DELIVERIES = 100_000
"""Most unended jobs with a webhook and pending deliveries together. A pending delivery takes about 2 kB of Redis, for
up to a day if its receiver does not answer."""


class WebhookUrls:
    """Checks the URLs of webhooks. The addresses of a name are checked at each delivery, because they may change."""

    def __init__(self, redis: Redis, destinations: Destinations, *, is_enabled: bool) -> None:
        self._redis = redis
        self._destinations = destinations
        self._is_enabled = is_enabled

    async def check(self, url: str) -> None:
        """Check that a webhook can be sent to a URL.

        Raises:
            WebhooksDisabled: there is no secret to sign it.
            UrlRefused: the URL is malformed, or leads to a forbidden address or port.
            TooManyDeliveries: there are `MAX_DELIVERIES`. Queuing the job checks this again.
        """
        if not self._is_enabled:
            raise WebhooksDisabled
        try:
            self._destinations.check_form(WebUrl.parse(url))
        except UrlRefused as error:
            raise UrlRefused(f"webhook_url is refused. {error.detail}") from error
        async with reaching_redis(), self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.PROMISES)
            pipeline.zcard(keys.DELIVERIES)
            pending = sum(await pipeline.execute())
        if pending >= MAX_DELIVERIES:
            raise TooManyDeliveries
