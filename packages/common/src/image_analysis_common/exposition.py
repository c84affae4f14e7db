"""Where Prometheus reads what a process has counted: `/metrics` on a port that clients never see."""

from prometheus_client import disable_created_metrics, start_http_server

from image_analysis_common.startup import StartupError


def serve_metrics(host: str, port: int | None) -> None:
    """Answer scrapes in threads of their own, as long as the process lives; without a port, nobody can ask.

    Raises:
        StartupError: nothing can listen there.
    """
    if port is None:
        return
    disable_created_metrics()  # a second series for each one, which nobody asks for
    try:
        start_http_server(port, host)
    except OSError as error:
        raise StartupError(f"Metrics cannot be served on {host}, port {port}: {error.strerror or error}.") from error
