"""The spans of a job, written after its end from the times in `Job.stages`: one batch serves many traces."""

import time

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from image_analysis_worker.jobs.batching import Job


def write_spans(job: Job, failure: Exception | None) -> dict[str, str]:
    """Add an ended job to the trace of its request; return its `trace_id` for the log line, or nothing without one."""
    if not job.traceparent:
        return {}
    request = TraceContextTextMapPropagator().extract({"traceparent": job.traceparent})
    context = trace.get_current_span(request).get_span_context()
    if not context.is_valid:
        return {}
    epoch_s = time.time() - time.perf_counter()

    def at_ns(moment_s: float) -> int:
        return int((epoch_s + moment_s) * 1e9)

    tracer = trace.get_tracer("image_analysis_worker")
    span = tracer.start_span(
        "analyze_image",
        request,
        SpanKind.CONSUMER,
        attributes={"messaging.system": "rq", "messaging.message.id": job.job_id},
        start_time=at_ns(job.started_s),
    )
    for stage, started_s, ended_s in job.stages:
        tracer.start_span(stage, trace.set_span_in_context(span, request), start_time=at_ns(started_s)).end(
            at_ns(ended_s)
        )
    if failure is not None:
        span.set_status(Status(StatusCode.ERROR, type(failure).__name__))
    span.end()
    return {"trace_id": trace.format_trace_id(context.trace_id)}
