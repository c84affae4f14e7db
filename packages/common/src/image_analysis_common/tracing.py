"""Traces by OpenTelemetry: off unless its standard variables ask for them.

One trace goes from a request through the queue to its job's end; between the services it travels as a `traceparent`.
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
    """Tell whether the environment asks for traces: it names a collector, or the exporter."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    return bool(exporter or any(os.environ.get(name) for name in ENDPOINTS)) and exporter != "none"


def start_tracing(service: str) -> None:
    """Send this process's spans to the collector that the environment names, if it does; the rest goes when it ends.

    Raises:
        StartupError: the variables ask for what is not there.
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
        # The SDK ignores the time limit that it can be given, and a collector may hang.
        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        thread.join(timeout_s)


def traceparent() -> dict[str, str]:
    """Give what a job carries of the trace that it belongs to; nothing where there is none."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


def add_trace_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Name the trace that a log line belongs to; a processor of structlog."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
    return event
