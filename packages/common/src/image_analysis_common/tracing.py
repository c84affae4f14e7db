"""Traces by OpenTelemetry; off unless its standard variables switch them on.

One trace covers a request, its wait in the queue, and its job. The services pass it on as a `traceparent`.
"""

import os
import threading

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict

from image_analysis_common.startup import StartupError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"


def is_wanted() -> bool:
    """Return whether the environment switches traces on: it names a collector, or the exporter."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    return bool(exporter or any(os.environ.get(name) for name in ENDPOINTS)) and exporter != "none"


def start_tracing(service: str) -> None:
    """Send this process's spans to the collector that the environment names, if any; the last ones at its exit.

    Raises:
        StartupError: the variables ask for an exporter or a protocol that is not supported or not installed.
    """
    if not is_wanted():
        return
    if os.environ.get("OTEL_TRACES_EXPORTER", "") not in ("", "otlp"):
        raise StartupError("OTEL_TRACES_EXPORTER: otlp is the only supported exporter, and none switches traces off.")
    if next((value for name in PROTOCOLS if (value := os.environ.get(name))), PROTOCOL) != PROTOCOL:
        raise StartupError(f"OTEL_EXPORTER_OTLP_PROTOCOL: {PROTOCOL} is the only supported protocol.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(f"Traces need the extra `telemetry`: install {service}[telemetry].") from error
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush_traces(timeout_s: float) -> None:
    """Send the spans that have ended, before a process ends without its exit handlers."""
    if flush := getattr(trace.get_tracer_provider(), "force_flush", None):
        # The SDK ignores its own timeout argument, and a collector may hang.
        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        thread.join(timeout_s)


def traceparent() -> dict[str, str]:
    """Return the current `traceparent` for a job's metadata; empty outside of a trace."""
    if not trace.get_current_span().get_span_context().is_valid:
        return {}
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


def add_trace_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the current trace's ID to a log line; a processor of structlog."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
