"""What a client does, as coroutines over a channel: call with retries, submit, wait, follow, cancel."""

import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from uuid import UUID

import httpx

from image_analysis_client import requests
from image_analysis_client.answers import check, check_stream, is_from_api, parse, parse_part, result_of
from image_analysis_client.channels import Channel, Stream
from image_analysis_client.deadline import NEVER, Deadline
from image_analysis_client.errors import ImageAnalysisError, ServiceUnreachable, WaitTimeout
from image_analysis_client.quota import Quota
from image_analysis_client.requests import MAX_WAIT_S, Request
from image_analysis_client.responses import (
    AnalysisStatus,
    Classifier,
    ClassifierList,
    ModelDetails,
    ModelList,
    ModelStatus,
)
from image_analysis_client.retries import Patience, is_refusal
from image_analysis_client.values import Options, Source
from image_analysis_common.models import AnalysisResult

POLL_S = 1.0
"""How often a job is asked for where the API cannot let another client wait."""

LAST_ANSWER_S = 1.0
"""How long after the deadline of a wait its last answer may still arrive."""

log = logging.getLogger("image_analysis_client")


def note_pause(code: str, seconds: float) -> None:
    """Log why and for how long nothing is sent; programs read the record's `code` and `retry_after_s`."""
    log.info("Waiting %.1f s: %s", seconds, code, extra={"code": code, "retry_after_s": seconds})


class OutOfTime(Exception):
    """No attempt is left before a deadline; `reason` is why the last one failed."""

    def __init__(self, reason: ImageAnalysisError) -> None:
        self.reason = reason
        super().__init__(reason)


class Session:
    """The calls of one client; `max_retry_s` bounds how long each is retried."""

    def __init__(self, channel: Channel, max_retry_s: float) -> None:
        self.channel = channel
        self.max_retry_s = max_retry_s
        self.quota = Quota()
        self._has_answered = False

    async def call(self, request: Request, deadline: Deadline = NEVER, *, is_retried: bool = True) -> httpx.Response:
        """Send a request until it succeeds.

        Raises:
            APIError, ServiceUnreachable: it does not, and another attempt would not help or is not allowed any more.
            OutOfTime: the deadline comes before the next attempt.
        """
        patience = Patience(self.max_retry_s if is_retried else 0.0)
        while True:
            was_unanswered = request.delivery.is_unanswered
            try:
                response = await self.channel.send(request)
                self.quota.note(response.headers)
                self._check(response)
                return response
            except ImageAnalysisError as error:
                if is_refusal(error):
                    request.delivery.is_unanswered = was_unanswered
                pause_s = patience.pause_after(error)
                if deadline.left_s() < pause_s:
                    raise OutOfTime(error) from error
                note_pause(error.code, pause_s)
            await self.channel.sleep(pause_s)

    def _check(self, response: httpx.Response) -> None:
        check(response, has_answered=self._has_answered)
        self._has_answered = self._has_answered or is_from_api(response)

    async def submit(self, source: Source, options: Options, deadline: Deadline | None = None) -> AnalysisStatus:
        """Submit one image; with a deadline, the answer may be the job's end.

        Raises:
            APIError, ServiceUnreachable: it was not accepted, and the deadline comes before the next attempt, too.
        """
        request = requests.submit_image(await self.channel.read(source), options, deadline)
        try:
            return parse(await self.call(request, deadline or NEVER), AnalysisStatus)
        except OutOfTime as end:
            raise end.reason from end.reason.__cause__

    async def classify(self, source: Source, options: Options, timeout_s: float | None) -> AnalysisResult:
        """Submit one image and wait for its result."""
        deadline = Deadline(timeout_s)
        status = await self.submit(source, options, deadline)
        return await self.wait(status, deadline)

    async def status(self, job_id: UUID) -> AnalysisStatus:
        return parse(await self.call(requests.read_job(job_id)), AnalysisStatus)

    async def wait(self, known: AnalysisStatus | UUID, deadline: Deadline) -> AnalysisResult:
        """Wait for a job's result, as `end` waits."""
        return result_of(await self.end(known, deadline))

    async def end(self, known: AnalysisStatus | UUID, deadline: Deadline) -> AnalysisStatus:
        """Wait for a job's end; nothing is asked if its known status is final.

        Raises:
            WaitTimeout: the deadline came first.
        """
        job_id, status = (known, None) if isinstance(known, UUID) else (known.job_id, known)
        while status is None or not status.status.is_final:
            wait_s = int(deadline.left_s(MAX_WAIT_S))
            asked_at = time.monotonic()
            request = replace(requests.read_job(job_id, wait_s), deadline=deadline.later(LAST_ANSWER_S))
            try:
                status = parse(await self.call(request, deadline), AnalysisStatus)
            except OutOfTime as end:
                await self.channel.sleep(deadline.left_s())
                raise WaitTimeout(job_id) from end.reason
            except ServiceUnreachable as error:
                if deadline.left_s() or not isinstance(error.__cause__, httpx.TimeoutException):
                    raise
                raise WaitTimeout(job_id) from error
            if status.status.is_final:
                break
            if not deadline.left_s():
                raise WaitTimeout(job_id)
            if wait_s == 0 or time.monotonic() - asked_at < wait_s / 2:
                await self.channel.sleep(deadline.left_s(POLL_S if wait_s else POLL_S / 4))
        return status

    async def follow(self, job_id: UUID) -> AsyncGenerator[AnalysisStatus, None]:
        """Give every status of a job as it comes, over any number of connections, until the last one.

        Raises:
            APIError: the job is unknown, or the answer or an event is not one of the API's.
            ServiceUnreachable: no answer came.
        """
        last_id, patience = "", Patience(self.max_retry_s)
        while True:
            try:
                async with self.channel.stream(requests.follow_job(job_id, last_id)) as stream:
                    self._check(stream.response)
                    if stream.response.status_code == httpx.codes.NO_CONTENT:
                        return
                    check_stream(stream.response)
                    while event := await _read_event(stream, patience):
                        last_id = event[0]
                        status = parse_part(stream.response, event[1], AnalysisStatus)
                        yield status
                        if status.status.is_final:
                            return
                pause_s = POLL_S  # the API ends every stream after ten minutes, and when it restarts
            except ImageAnalysisError as error:
                pause_s = patience.pause_after(error)
                note_pause(error.code, pause_s)
            await self.channel.sleep(pause_s)

    async def cancel(self, job_id: UUID) -> AnalysisStatus | None:
        response = await self.call(requests.cancel_job(job_id))
        return None if response.status_code == httpx.codes.NO_CONTENT else parse(response, AnalysisStatus)

    async def look(self) -> None:
        """Ask for the quota, in a call that costs nothing of it."""
        await self.call(requests.list_models())

    async def models(self) -> list[ModelStatus]:
        return parse(await self.call(requests.list_models()), ModelList).models

    async def model(self, model_id: str) -> ModelDetails:
        return parse(await self.call(requests.read_model(model_id)), ModelDetails)

    async def classifiers(self) -> list[Classifier]:
        return parse(await self.call(requests.list_classifiers()), ClassifierList).classifiers

    async def classifier(self, name: str) -> Classifier:
        return parse(await self.call(requests.read_classifier(name)), Classifier)

    async def delete_classifier(self, name: str) -> None:
        await self.call(requests.delete_classifier(name))


async def _read_event(stream: Stream, patience: Patience) -> tuple[str, str] | None:
    """Return the next event's ID and data; None at the end. Comments and half an event are dropped.

    Each event and each comment ends an outage: the next one has all of its time.
    """
    fields: dict[str, str] = {}
    while (line := await stream.next_line()) is not None:
        if line.startswith(":"):
            patience.renew()
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            patience.renew()
            return fields.get("id", ""), fields["data"]
        else:
            fields = {}
    return None
