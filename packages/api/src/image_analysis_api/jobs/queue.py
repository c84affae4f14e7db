"""The API's side of RQ: an image, its job's record and RQ's job go into Redis together or not at all."""

from collections.abc import Callable
from functools import cache
from typing import Any, cast
from uuid import UUID

import redis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline as AsyncPipeline
from redis.client import Pipeline
from rq import Queue, Retry

from image_analysis_api.jobs.position import PACE
from image_analysis_api.jobs.records import ENLIST
from image_analysis_api.jobs.runs import LOCATE, UNENDED
from image_analysis_api.outbound.webhook_urls import MAX_DELIVERIES
from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys, tasks, tracing
from image_analysis_common.errors import QueueFull, TooManyDeliveries
from image_analysis_common.records import JobRecord

MAX_RETRY_AFTER_S = 300
"""However long the queue takes: workers may come."""

FOLLOWERS_FULL = (
    "{count} jobs wait for images that others sent, and no more are accepted: try again in {retry_after_s} s."
)
FOLLOWERS_PER_PLACE = 10
"""So many times `max_depth` jobs may follow others; the record of each takes half a kB of Redis."""

# A job without another attempt or without its image can only fail: nobody else may follow it into that.
CAN_RUN = f"""
local function can_run(run)
  local has_attempts = redis.call('HGET', 'rq:job:' .. run, 'retries_left') ~= '0'
  return has_attempts and redis.call('EXISTS', '{keys.image("")}' .. run) == 1
end
"""

# Where another job runs this very image already, the new one follows it: its record takes every step with the
# leader's, and nothing is queued; one that is urgent takes a waiting leader to the front with it. A leader that its
# owner took back runs on for those that follow it, and is where any of them is. One that RQ has lost, or that has
# waited for too long, is not followed. Where the leader has ended since the cache was asked, the result stands there
# now. Otherwise the new job leads, and the commands that queue it are run, unless too much waits already: then the
# answer is what, how much of it, and how many seconds half of the queue will take at the present pace. Where nothing
# waits or runs, the count of bytes begins anew: images that expired are not in it.
ENQUEUE = (
    ENLIST
    + PACE
    + LOCATE
    + UNENDED
    + CAN_RUN
    + f"""
local leader, record, ttl = KEYS[1], KEYS[2], ARGV[1]
local cache_field, size, is_urgent, waiting_s = unpack(ARGV, 5, 8)
local max_depth, max_bytes, max_followers, max_deliveries, fields = unpack(ARGV, 9, 13)
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local depth = redis.call('LLEN', KEYS[4])
local function take_in()
  redis.call('HSET', record, unpack(ARGV, 14, 13 + fields))
  redis.call('EXPIRE', record, ttl)
  if max_deliveries ~= '' then note('{keys.PROMISES}', ARGV[2], now) end
  if KEYS[9] ~= '' then enlist(KEYS[9], ARGV[2]) end
end
local function refuse(what, count)
  local ended, seconds = pace(KEYS[6], KEYS[7])
  return {{what, count, math.ceil(math.max(depth, 1) / 2 * (seconds or 60) / (ended or 1))}}
end
if cache_field ~= '' and redis.call('HEXISTS', KEYS[3], cache_field) == 1 then return 'cached' end
if max_deliveries ~= '' then
  local left = max_deliveries - redis.call('ZCARD', '{keys.DELIVERIES}')
  if is_full('{keys.PROMISES}', left, now) then return 'deliveries' end
end
local leading = redis.call('GET', leader)
if leading then
  local status, until_s = unpack(redis.call('HMGET', ARGV[3] .. leading, 'status', 'waits_until_s'))
  if status == 'CANCELLED' then
    local follower = redis.call('SRANDMEMBER', ARGV[4] .. leading)
    status = follower and redis.call('HGET', follower, 'status')
  end
  local can_wait = status == 'PROCESSING' or (status == 'PENDING' and (not until_s or now < tonumber(until_s)))
  if can_wait and locate(leading) and can_run(leading) then
    if is_full(KEYS[10], max_followers, now) then return refuse('followers', redis.call('ZCARD', KEYS[10])) end
    redis.call('SADD', ARGV[4] .. leading, record)
    redis.call('EXPIRE', ARGV[4] .. leading, ttl)
    take_in()
    redis.call('HSET', record, 'status', status, 'follows', leading, 'counted', KEYS[10])
    note(KEYS[10], ARGV[2], now)
    if is_urgent == '1' and redis.call('LREM', KEYS[4], 1, leading) == 1 then
      redis.call('LPUSH', KEYS[4], leading)
    end
    return leading
  end
end
local is_idle = depth == 0 and redis.call('ZCARD', KEYS[8]) == 0
local bytes = (not is_idle and redis.call('GET', KEYS[5]) or 0) + size
if depth >= tonumber(max_depth) or bytes > tonumber(max_bytes) then return refuse('images', depth) end
redis.call('SET', KEYS[5], bytes, 'EX', ttl)
redis.call('SET', leader, ARGV[2], 'EX', ttl)
take_in()
local at = 14 + fields
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
local until_s = string.format('%.3f', now + waiting_s)
redis.call('HSET', record, 'leads', leader, 'counted', KEYS[5], 'waits_until_s', until_s)
note('{keys.RUNS}', ARGV[2], now)
return false
"""
)


QueueOf = Callable[[str | None], "JobQueue"]


class ResultKnown(Exception):
    """The image need not be queued: ask the cache again."""


class JobQueue:
    """The queue of one model, under `key` in Redis."""

    def __init__(
        self,
        connection: Redis,
        model: str,
        *,
        job_timeout_s: int = 60,
        max_depth: int = 1000,
        max_bytes: int = 256_000_000,
        waiting_s: float = keys.WAITING_JOB_TTL_S,
    ) -> None:
        self._redis = connection
        self._model = model
        self._job_timeout_s = job_timeout_s
        self._max_depth = max_depth
        self._max_bytes = max_bytes
        self._waiting_s = waiting_s
        self._enqueue = connection.register_script(ENQUEUE)
        # RQ never uses the connection here, but wants one, and the server's version that it would ask for.
        self._queue = Queue(
            tasks.queue_name(model), connection=cast(redis.Redis, connection), serializer=tasks.SERIALIZER
        )
        self._queue.redis_server_version = (6, 2, 0)
        self.key = self._queue.key
        # RQ makes a registry anew, in 30 microseconds, each time that it is asked for one.
        self._registry_keys = [
            registry.key
            for registry in (
                self._queue.finished_job_registry,
                self._queue.failed_job_registry,
                self._queue.started_job_registry,
            )
        ]

    @classmethod
    def factory(cls, connection: Redis, default_model: str, **limits: int) -> "QueueOf":
        """Make what finds each model's queue; that of the default model for None."""

        @cache
        def queue_of(model: str | None) -> JobQueue:
            return cls(connection, model or default_model, **limits)

        return queue_of

    async def enqueue(
        self,
        job_id: UUID,
        image: bytes,
        record: JobRecord,
        *,
        request_id: str,
        cache_field: str = "",
        is_urgent: bool = False,
    ) -> UUID | None:
        """Queue an image in one round trip; return the ID of the job that it follows, if one runs this image already.

        One that `is_urgent` goes before all that wait.

        Raises:
            ResultKnown: the image's result came into the cache under `cache_field`; nothing was queued.
            QueueFull: `max_depth` jobs wait, `max_bytes` of images are there, or too many jobs follow others; nothing
                was queued.
            TooManyDeliveries: the job has a webhook, and too many have been promised; nothing was queued.
            StoreUnavailable: nothing was queued.
        """
        script_keys, args = self._call(job_id, image, record, request_id, cache_field, is_urgent)
        async with reaching_redis():
            answer = await self._enqueue(keys=script_keys, args=args)
        return read_answer(answer)

    def write(
        self,
        pipeline: AsyncPipeline,
        job_id: UUID,
        image: bytes,
        record: JobRecord,
        *,
        request_id: str,
        cache_field: str = "",
        is_urgent: bool = False,
    ) -> None:
        """Do as `enqueue` does, as one command of a pipeline; `read_answer` reads what it brings."""
        script_keys, args = self._call(job_id, image, record, request_id, cache_field, is_urgent)
        pipeline.eval(ENQUEUE, len(script_keys), *script_keys, *args)

    def _call(
        self, job_id: UUID, image: bytes, record: JobRecord, request_id: str, cache_field: str, is_urgent: bool
    ) -> tuple[list[str], list[Any]]:
        """Put the script's keys and arguments together."""
        identifier = str(job_id)
        job = self._queue.create_job(
            tasks.ANALYZE_IMAGE,
            kwargs={"job_id": identifier},
            job_id=identifier,
            timeout=self._job_timeout_s,
            ttl=keys.UNENDED_JOB_TTL_S,
            result_ttl=keys.FINISHED_JOB_TTL_S,
            failure_ttl=keys.ENDED_JOB_TTL_S,
            retry=Retry(max=tasks.MAX_ATTEMPTS, enqueue_at_front=True),
            description=f"image {record.image_hash[:12]}",
            meta={"request_id": request_id, **tracing.traceparent()},
        )
        # RQ's own code writes the job into a pipeline; the script runs what stands in it.
        pipeline = self._redis.pipeline()
        self._queue.enqueue_job(job, pipeline=cast(Pipeline, pipeline), at_front=is_urgent)
        pipeline.set(keys.image(identifier), image, ex=keys.UNENDED_JOB_TTL_S)
        commands = [part for command, _ in pipeline.command_stack for part in (len(command), *command)]
        fields = [part for field in record.to_hash().items() for part in field]
        return [
            keys.leader(self._model, record.image_hash, is_deep=record.is_deep),
            keys.job(identifier),
            keys.result(record.image_hash),
            self._queue.key,
            keys.image_bytes(self._model),
            *self._registry_keys,
            keys.jobs_of(record.owner) if record.owner else "",
            keys.following(self._model),
        ], [
            keys.UNENDED_JOB_TTL_S,
            identifier,
            keys.job(""),
            keys.followers(""),
            cache_field,
            len(image),
            int(is_urgent),
            self._waiting_s,
            self._max_depth,
            self._max_bytes,
            FOLLOWERS_PER_PLACE * self._max_depth,
            MAX_DELIVERIES if record.webhook_url else "",
            len(fields),
            *fields,
            *commands,
        ]


def read_answer(answer: Any) -> UUID | None:
    """Read what queuing an image brought, as `JobQueue.enqueue` returns and raises it."""
    match answer:
        case b"cached":
            raise ResultKnown
        case b"deliveries":
            raise TooManyDeliveries
        case [what, count, half_gone_s]:
            retry_after_s = max(min(half_gone_s, MAX_RETRY_AFTER_S), 1)
            raise QueueFull(
                "" if what == b"images" else FOLLOWERS_FULL.format(count=count, retry_after_s=retry_after_s),
                depth=count,
                retry_after_s=retry_after_s,
            )
        case bytes():
            return UUID(answer.decode())
    return None
