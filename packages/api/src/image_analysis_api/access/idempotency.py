"""`Idempotency-Key` (IETF draft httpapi-idempotency-key-header-07): a request that is sent twice is accepted once.

A key is claimed before the request is processed, with the ID that its job or batch will get. After a crash, either
that job or batch exists and is found by its ID, or it does not and the claim soon expires.
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
from image_analysis_api.store.client import may_have_run, run_script
from image_analysis_common import keys
from image_analysis_common.errors import IdempotencyKeyReused, RequestError, RequestInProgress, StoreUnavailable
from image_analysis_common.scripts import limits

HEADER = "Idempotency-Key"
PATTERN = r"^[!-~]([ -~]{0,253}[!-~])?$"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Claim:
    """The ID for the request's job or batch; for a replay, the ID of the existing one."""

    id: UUID
    key: str | None = None
    """The claim's key in Redis, for a request that has one."""
    is_replay: bool = False


class Idempotency:
    """Remembers the job or batch of each key. `busy_s` is the longest time for accepting one image."""

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
        """Claim a request's key while the block accepts the request. An error in the block releases the key,
        unless Redis may still get the job or batch.

        `work` is the prefix of the Redis key of the job or batch, before its ID. `rounds` multiplies the time for
        accepting one image. For a request without a key, this does nothing.

        Raises:
            RequestError: the key is malformed.
            IdempotencyKeyReused: the key was used for a different request.
            RequestInProgress: an earlier request with this key is still being accepted.
        """
        text = request.headers.get(HEADER)
        if text is None:
            yield Claim(uuid4())
            return
        if not re.match(PATTERN, text):
            raise RequestError(f"{HEADER} must have 1 to 255 printable ASCII characters: use a new UUID.")
        # The draft defines a quoted string; many clients omit the quotes.
        text = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
        key = keys.idempotency(caller(request, owner), sha256(text.encode()).hexdigest())
        claim, mine = Claim(uuid4(), key), f"{work}{await fingerprint()}"
        call = limits.claim_key(key, fingerprint=mine, work_id=str(claim.id), work=work, busy_s=self._busy_s * rounds)
        match found := await run_script(self._redis, call):
            case b"other":
                raise IdempotencyKeyReused
            case b"busy":
                raise RequestInProgress
            case bytes():
                log.info("request_replayed", id=found.decode())
                yield Claim(UUID(found.decode()), key, is_replay=True)
                return
        try:
            yield claim
        except BaseException as error:
            # The client may try again with the same key. If Redis may still get the job, the claim must expire by
            # itself: a slow link can bring a large image long after this.
            if isinstance(error, StoreUnavailable) and may_have_run(error):
                raise
            with suppress(StoreUnavailable):
                await run_script(self._redis, limits.release_key(key, work_id=str(claim.id), work=work))
            raise
