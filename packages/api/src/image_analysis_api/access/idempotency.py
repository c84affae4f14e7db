"""`Idempotency-Key` (IETF draft httpapi-idempotency-key-header-07): a request that is sent twice is taken in once.

A key is claimed before the work, with the ID that the work will get, and work is there under its ID the moment that it
is taken in: so a crash leaves either a claim that soon lapses, or work that is found again.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis
from starlette.requests import Request

from image_analysis_api.access.admission import caller
from image_analysis_api.store.client import run_script
from image_analysis_common import keys
from image_analysis_common.errors import IdempotencyKeyReused, RequestError, RequestInProgress, StoreUnavailable
from image_analysis_common.scripts import limits

HEADER = "Idempotency-Key"
PATTERN = r"^[!-~]([ -~]{0,253}[!-~])?$"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claim:
    """The ID under which to take the request in, or under which it was taken in before."""

    id: UUID
    is_replay: bool = False


class Idempotency:
    """Remembers which work a key led to; `busy_s` is how long taking in one image can last."""

    def __init__(self, redis: Redis, *, busy_s: float) -> None:
        self._redis = redis
        self._busy_s = busy_s

    @asynccontextmanager
    async def claim(
        self,
        request: Request,
        owner: str | None,
        work: str,
        fingerprint: Callable[[], Awaitable[str]],
        *,
        rounds: int = 1,
    ) -> AsyncIterator[Claim]:
        """Claim a request's key while the block takes the request in; an error in the block frees the key again.

        `work` is the prefix of the Redis keys under which the work can be found by its ID. Taking it in may need
        several `rounds`, each as long as one image. Requests without a key cost nothing here.

        Raises:
            RequestError: the key is malformed.
            IdempotencyKeyReused: it came with another request.
            RequestInProgress: the request that it came with is being taken in now.
        """
        claim = Claim(uuid4())
        text = request.headers.get(HEADER)
        if text is None:
            yield claim
            return
        if not re.match(PATTERN, text):
            raise RequestError(f"{HEADER} must have 1 to 255 printable ASCII characters: use a new UUID.")
        # The draft writes it as a quoted string, many clients without quotes.
        text = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
        key = keys.idempotency(caller(request, owner), sha256(text.encode()).hexdigest())
        mine = f"{work}{await fingerprint()}"
        call = limits.claim_key(key, fingerprint=mine, work_id=str(claim.id), work=work, busy_s=self._busy_s * rounds)
        match found := await run_script(self._redis, call):
            case b"other":
                raise IdempotencyKeyReused
            case b"busy":
                raise RequestInProgress
            case bytes():
                log.info("request_replayed", id=found.decode())
                yield Claim(UUID(found.decode()), is_replay=True)
                return
        try:
            yield claim
        except BaseException:
            # Refused or broken: the key is free for another try. If Redis is away, the claim lapses by itself.
            with suppress(StoreUnavailable):
                await run_script(self._redis, limits.release_key(key, work_id=str(claim.id), work=work))
            raise
