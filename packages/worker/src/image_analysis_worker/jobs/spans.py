"""The spans of a job, written when it has ended, from the times that it carries; batches belong to many traces."""

import time

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from image_analysis_worker.jobs.in_flight import Work


def write_spans(work: Work, failure: Exception | None) -> dict[str, str]:
    """Write an ended job into the trace of its request; return the log's field that leads there, if there is one."""
    if not work.traceparent:
        return {}
    request = TraceContextTextMapPropagator().extract({"traceparent": work.traceparent})
    context = trace.get_current_span(request).get_span_context()
    if not context.is_valid:
        return {}
    epoch_s = time.time() - time.perf_counter()

    def at_ns(moment_s: float) -> int:
        return int((epoch_s + moment_s) * 1e9)

    tracer = trace.get_tracer("image_analysis_worker")
    job = tracer.start_span(
        "analyze_image",
        request,
        SpanKind.CONSUMER,
        attributes={"messaging.system": "rq", "messaging.message.id": work.job_id},
        start_time=at_ns(work.started_s),
    )
    for stage, started_s, ended_s in work.stages:
        tracer.start_span(stage, trace.set_span_in_context(job, request), start_time=at_ns(started_s)).end(
            at_ns(ended_s)
        )
    if failure is not None:
        job.set_status(Status(StatusCode.ERROR, type(failure).__name__))
    job.end()
    return {"trace_id": trace.format_trace_id(context.trace_id)}
