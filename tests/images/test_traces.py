"""The images with the variables of OpenTelemetry: every service sends traces to the collector."""

from collections.abc import Iterator

import httpx
import pytest

from images.composition import PROJECT, Composition
from images.conftest import Ask, Submit
from support.images import small_images, unique
from support.waiting import wait_until

COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            [service] = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                print(self.path, service, span.trace_id.hex(), flush=True)
        self.send_response(200)
        self.end_headers()


HTTPServer(("", 4318), Collector).serve_forever()
"""
NAME = f"{PROJECT}-collector"


@pytest.fixture
def collector(composition: Composition) -> Iterator[str]:
    """A container that prints what it receives; API and workers have its address."""
    network = ("--network", f"{PROJECT}_inside", "--network-alias", "collector")
    composition.docker("run", "--detach", "--name", NAME, *network, "image-analysis-api", "python", "-c", COLLECTOR)
    try:
        composition.extend({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}).up()
        yield NAME
        composition.up()
    finally:
        composition.docker("rm", "--force", NAME)


def test_api_and_worker_tell_the_collector_of_one_trace(
    composition: Composition, collector: str, client: httpx.Client, submit: Submit, ask: Ask
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.headers["traceparent"] = f"00-{trace_id}-00f067aa0ba902b7-01"

    assert ask(submit(unique(small_images()[0])))["status"] == "COMPLETED"

    def services() -> set[str]:
        lines = composition.docker("logs", collector).splitlines()
        return {service for path, service, of in map(str.split, lines) if (path, of) == ("/v1/traces", trace_id)}

    wait_until(lambda: services() == {"image-analysis-api", "image-analysis-worker"}, "both services have sent spans")
