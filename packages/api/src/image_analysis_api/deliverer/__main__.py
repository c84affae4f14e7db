"""Start a deliverer: read the settings, configure logs, build, deliver."""

import asyncio
import signal
import socket
import sys
from contextlib import suppress

import structlog

from image_analysis_api.deliverer.courier import TIMEOUT_S, Courier
from image_analysis_api.deliverer.outbox import Outbox
from image_analysis_api.deliverer.rounds import MAX_CONCURRENT, Rounds
from image_analysis_api.outbound.client import Destinations, OutboundClient
from image_analysis_api.outbound.resolver import Resolver
from image_analysis_api.settings import DelivererSettings
from image_analysis_api.store.client import check_redis, connect
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.exposition import serve_metrics
from image_analysis_common.logs import configure_logs
from image_analysis_common.startup import StartupError, refuse_arguments, refuse_to_start

log = structlog.get_logger(__name__)


def main() -> None:
    """Deliver until SIGINT or SIGTERM; running attempts get a few seconds to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # while it starts
    try:
        settings = DelivererSettings.from_environment()
        configure_logs(settings, "deliverer")
        with suppress(StoreUnavailable):  # the main loop logs it
            asyncio.run(check_redis(settings.redis_dsn, settings.sentinels))
        serve_metrics(settings.metrics_host, settings.deliverer_metrics_port)
    except StartupError as error:
        refuse_to_start("deliverer", error)
    asyncio.run(_deliver(settings))


async def _deliver(settings: DelivererSettings) -> None:
    is_enabled = bool(settings.webhook_secret)
    redis = connect(settings.redis_dsn, settings.sentinels)
    outbound = OutboundClient(Destinations.of(settings), Resolver(settings.fetch_dns_servers), read_timeout_s=TIMEOUT_S)
    courier = Courier(outbound, settings.webhook_secret)
    outbox = Outbox(redis, socket.gethostname())
    rounds = Rounds(outbox, courier, max_concurrent=MAX_CONCURRENT if is_enabled else 0)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, rounds.stop)
    if is_enabled:
        log.info("deliverer_started")
    else:
        log.warning("webhooks_disabled", action="Set WEBHOOK_SECRET for the API and the deliverer.")
    await rounds.run()
    await courier.aclose()
    await redis.aclose()
    log.info("deliverer_stopped")


if __name__ == "__main__":
    refuse_arguments("deliverer")
    main()
