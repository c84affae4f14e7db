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
from image_analysis_api.server.address import check_address
from image_analysis_api.server.connections import bound
from image_analysis_api.server.websocket_connections import BoundWebSocket
from image_analysis_api.settings import ApiSettings
from image_analysis_api.store.client import check_redis, connect_blocking
from image_analysis_common.errors import StoreUnavailable
from image_analysis_common.exposition import serve_metrics
from image_analysis_common.logs import configure_logs
from image_analysis_common.startup import EXIT_CANNOT_START, StartupError, refuse_arguments, refuse_to_start
from image_analysis_common.tracing import start_tracing

GARBAGE_OBJECTS = 50_000
"""The garbage collector runs after as many new objects: those of 200 open requests are about half as many."""


class Server(uvicorn.Server):
    """Ends the waits of clients first: uvicorn gives open requests ten seconds, and some clients would wait longer."""

    def __init__(self, config: uvicorn.Config, *, before_shutdown: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_shutdown = before_shutdown

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_shutdown()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGINT or SIGTERM; open requests are finished first."""
    # When uvicorn has finished, it sends itself the signal again, which would otherwise kill it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = ApiSettings.from_environment()
        configure_logs(settings, "api")
        structlog.configure(cache_logger_on_first_use=True)  # making a logger for each line takes 20 microseconds
        try:
            asyncio.run(check_redis(settings.redis_dsn, settings.sentinels))
        except StoreUnavailable as error:
            structlog.get_logger(__name__).warning("store_unavailable", cause=str(error.__cause__))
        redis = connect_blocking(settings.redis_dsn, settings.sentinels, timeout_s=queue_metrics.TIMEOUT_S)
        REGISTRY.register(queue_metrics.QueueMetrics(redis, settings.model_name))
        start_tracing("image-analysis-api")
        serve_metrics(settings.metrics_host, settings.api_metrics_port)
        check_address(settings.api_host, settings.api_port)
    except StartupError as error:
        refuse_to_start("api", error)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS reports a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    app = create_app(settings)
    # Imported modules are never freed: scanning them for garbage took an eighth of the time of every call.
    gc.freeze()
    # A call leaves no cycles. Searching all open requests for them after 700 new objects took a twelfth of the time.
    gc.set_threshold(GARBAGE_OBJECTS)
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
            proxy_headers=False,  # create_app adds them if proxies are trusted
            timeout_graceful_shutdown=10,
            ws_max_size=1024,  # clients send nothing that is read
            ws_per_message_deflate=False,  # its buffers would be most of the memory of a waiting client
        ),
        before_shutdown=app.state.services.waiting_room.dismiss,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again at its end
        server.run()
    if not server.started:
        sys.exit(EXIT_CANNOT_START)


if __name__ == "__main__":
    refuse_arguments("api")
    main()
