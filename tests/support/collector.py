"""A collector of traces on loopback, which stores what it receives."""

from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


class Span(NamedTuple):
    """One span, as the collector received it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    is_error: bool


def collect(server: HTTPServer) -> list[Span]:
    """Make a web server a collector; return the list to which it adds each span."""
    received: list[Span] = []

    def take(request: Request) -> Response:
        for resource in ExportTraceServiceRequest.FromString(request.get_data()).resource_spans:
            attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
            received.extend(
                Span(
                    attributes["service.name"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                )
                for scope in resource.scope_spans
                for span in scope.spans
            )
        return Response(status=200)

    server.expect_request("/v1/traces", method="POST").respond_with_handler(take)
    return received


def exporting_to(server: HTTPServer) -> dict[str, str]:
    """Return the variables with which a service sends its spans there."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": server.url_for("/"), "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
