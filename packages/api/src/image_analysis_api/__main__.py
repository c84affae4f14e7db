"""Start the API: read the settings, configure logs, build, serve."""

import asyncio
import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import structlog
import uvicorn
from prometheus_client import REGISTRY

from image_analysis_api import queue_metrics
from image_analysis_api.app import create_app
from image_analysis_api.server.connections import bound
from image_analysis_api.server.websocket_connections import BoundWebSocket
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store.client import check_version
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.exposition import serve_metrics
from image_analysis_common.logs import configure_logs
from image_analysis_common.startup import EXIT_CANNOT_START, StartupError, refuse_to_start
from image_analysis_common.tracing import start_tracing


class Server(uvicorn.Server):
    """Sends waiting clients away first: uvicorn gives open requests ten seconds, and some would wait longer."""

    def __init__(self, config: uvicorn.Config, *, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_shutdown()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGINT or SIGTERM; open requests are finished first."""
    # When uvicorn has finished, it sends itself the signal once more: without this, we would end as if killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = ApiSettings.from_environment()
        configure_logs(settings, "api")
        try:
            asyncio.run(check_version(settings.redis_dsn))
        except StoreUnavailable as error:
            structlog.get_logger(__name__).warning("store_unavailable", cause=str(error.__cause__))
        REGISTRY.register(queue_metrics.QueueMetrics(queue_metrics.connect(settings.redis_dsn), settings.model_name))
        start_tracing("image-analysis-api")
        serve_metrics(settings.metrics_host, settings.api_metrics_port)
    except StartupError as error:
        refuse_to_start("api", error)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS promises more than it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    app = create_app(settings)
    # What was imported stays: looking through it for garbage again and again cost an eighth of every call.
    gc.freeze()
    server = Server(
        uvicorn.Config(
            app,
            host=settings.api_host,
            port=settings.api_port,
            http=bound(settings.body_timeout_seconds),
            ws=BoundWebSocket,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # create_app adds them, where proxies are trusted
            timeout_graceful_shutdown=10,
            ws_max_size=1024,  # clients have nothing to say
            ws_per_message_deflate=False,  # its windows would be most of what a waiter costs
        ),
        before_shutdown=app.state.services.waiting_room.dismiss,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is done
        server.run()
    if not server.started:
        sys.exit(EXIT_CANNOT_START)


if __name__ == "__main__":
    main()
