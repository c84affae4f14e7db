"""Serves a process's metrics to Prometheus: `/metrics`, on a port of its own that clients do not reach."""

from prometheus_client import disable_created_metrics, start_http_server

from image_analysis_common.startup import StartupError


def serve_metrics(host: str, port: int | None) -> None:
    """Answer scrapes in separate threads as long as the process runs; without a port, do nothing.

    Raises:
        StartupError: the address or the port cannot be used.
    """
    if port is None:
        return
    disable_created_metrics()  # they would double the number of series
    try:
        start_http_server(port, host)
    except (OSError, UnicodeError) as error:  # UnicodeError: such a name of a host cannot be
        reason = getattr(error, "strerror", None) or error
        raise StartupError(f"Metrics cannot be served on {host}, port {port}: {reason}.") from error
