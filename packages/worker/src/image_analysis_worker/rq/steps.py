"""What RQ keeps of each step of a job; the script that takes the step writes it, in RQ's own fields.

An end without an execution is that of a job that was popped and never started.
"""

import zlib
from base64 import b64encode

from rq.executions import Execution

from image_analysis_common.models import FrozenModel, JobFailure
from image_analysis_common.scripts.runs import RqStep, StepKind

PUT_BACK = RqStep("put_back")
"""Return a popped job to the front of the queue."""


def start(execution: Execution) -> RqStep:
    """Start a popped job."""
    return _step("start", execution)


def complete(execution: Execution | None, result: FrozenModel) -> RqStep:
    """End a job with a result; an embedding is left out, because our own keys hold it."""
    text = result.model_dump_json(exclude={"embedding"})
    return _step("complete", execution, b64encode(text.encode()).decode())


def fail(execution: Execution | None, failure: JobFailure) -> RqStep:
    """End a job with an error."""
    text = f"{failure.code}: {failure.detail}"
    return _step("fail", execution, b64encode(zlib.compress(text.encode())).decode())


def retry(execution: Execution, attempts_left: int) -> RqStep:
    """Requeue a running job; the attempt is used up."""
    return _step("retry", execution, attempts_left - 1)


def abandon(execution_id: str, retries_left: int | None) -> RqStep:
    """Requeue a job whose execution has expired; the attempt is used up."""
    # If no attempt is left, RQ would fail the job without writing our record. The next worker does both.
    return RqStep("abandon", execution_id, value=max(retries_left or 0, 1) - 1)


def give_back(execution: Execution) -> RqStep:
    """Return a running job to the front of the queue; no attempt is used up."""
    return _step("give_back", execution)


def _step(kind: StepKind, execution: Execution | None, value: str | int = "") -> RqStep:
    if execution is None:
        return RqStep(kind, value=value)
    return RqStep(kind, execution.id, execution.created_at.timestamp(), value)
