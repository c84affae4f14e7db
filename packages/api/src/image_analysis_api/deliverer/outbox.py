"""What webhooks have still to be told, as it lies in Redis; any number of deliverers take from it.

A delivery is there from the job's end until it is made or given up. Who takes one moves its due time on by a lease, so
that it comes to another deliverer where this one dies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from image_analysis_api.store.client import reaching_redis
from image_analysis_common import keys

LEASE_S = 30.0
"""Longer than an attempt takes."""

ASIDE_S = 2.0
"""How long deliveries step aside that would keep others from being seen."""

MAX_SCANNED = 200
"""So many are looked at in one step, 0.2 ms of Redis."""

# A receiver (host and port, however the URL writes them) may have as many attempts under way as are left for all
# others: a slow one takes half of them at most, the next one half of the rest. Where of all that were looked at none
# can be taken, they step aside, so that those behind them are seen at once. One whose copy has gone was forgotten, or
# lay here for too long.
CLAIM = f"""
local free, lease, aside, busy = tonumber(ARGV[1]), ARGV[2], ARGV[3], {{}}
for at = 4, #ARGV, 2 do busy[ARGV[at]] = tonumber(ARGV[at + 1]) end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local function move(job_id, delay) redis.call('ZADD', KEYS[1], string.format('%.3f', now + delay), job_id) end
local function receiver_of(url)
  local scheme, authority = string.match(string.lower(url), '^(%a+)://([^/?#]*)')
  local host, port = string.match(authority or '', '^(.*):(%d*)$')
  host = string.gsub(host or authority or '', '%.$', '')
  return host .. ':' .. (tonumber(port) or scheme == 'http' and 80 or 443)
end
local found, passed = {{}}, {{}}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, {MAX_SCANNED})) do
  if #found == free then break end
  local delivery = '{keys.delivery("")}' .. job_id
  local url = redis.call('HGET', delivery, 'webhook_url')
  if not url then
    redis.call('ZREM', KEYS[1], job_id)
  else
    local receiver = receiver_of(url)
    local under_way = busy[receiver] or 0
    if under_way < free - #found then
      busy[receiver] = under_way + 1
      move(job_id, lease)
      redis.call('HINCRBY', delivery, 'attempts', 1)
      table.insert(found, {{job_id, receiver, redis.call('HGETALL', delivery)}})
    else
      table.insert(passed, job_id)
    end
  end
end
local wait = ''
if #passed == {MAX_SCANNED} then
  for _, job_id in ipairs(passed) do move(job_id, aside) end
  wait = '0'
else
  local after = '(' .. string.format('%.3f', now)
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if due then wait = string.format('%.3f', due - now) end
end
return {{found, string.format('%.3f', now), wait}}
"""

# Whoever has taken it since, because the lease had run out, decides about it instead.
RETRY = """
if redis.call('HGET', KEYS[2], 'attempts') ~= ARGV[2] then return end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.3f', clock[1] + clock[2] / 1000000 + ARGV[3]), ARGV[1])
"""


@dataclass(frozen=True)
class Delivery:
    """One attempt at telling a webhook: which one it is, to whom, what, and how long after the job's end."""

    job_id: str
    receiver: str
    attempts: int
    age_s: float
    record: Mapping[bytes, bytes]
    """The job's record as Redis holds it: another release may have written it."""


class Outbox:
    """Takes deliveries that are due, and notes what has become of them.

    Every method raises StoreUnavailable when Redis is away; all can be called again.
    """

    def __init__(self, redis: Redis, host: str, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._host = host
        self._lease_s = lease_s
        self._claim = redis.register_script(CLAIM)
        self._retry = redis.register_script(RETRY)

    async def claim(self, free: int, busy: Mapping[str, int]) -> tuple[list[Delivery], float | None]:
        """Take up to `free` deliveries, where `busy` says how many each receiver has under way.

        The second value is the time until it is worth while to ask again, if that is known.
        """
        under_way = [part for pair in busy.items() for part in pair]
        async with reaching_redis():
            found, now, wait = await self._claim(
                keys=[keys.DELIVERIES], args=[free, self._lease_s, ASIDE_S, *under_way]
            )
        claimed = []
        for job_id, receiver, pairs in found:
            record = dict(zip(pairs[::2], pairs[1::2], strict=True))
            try:
                age_s = float(now) - float(record[b"ended_s"])
            except (KeyError, ValueError):  # another release wrote it: its copy lives no longer than the period
                age_s = 0
            claimed.append(Delivery(job_id.decode(), receiver.decode(), int(record[b"attempts"]), age_s, record))
        return claimed, max(float(wait), 0) if wait else None

    async def retry(self, delivery: Delivery, delay_s: float) -> None:
        """Let a delivery be due again after a while, unless another deliverer has it or it was forgotten."""
        async with reaching_redis():
            await self._retry(
                keys=[keys.DELIVERIES, keys.delivery(delivery.job_id)],
                args=[delivery.job_id, delivery.attempts, f"{delay_s:.3f}"],
            )

    async def drop(self, delivery: Delivery) -> None:
        """Forget a delivery that was made or given up."""
        async with reaching_redis(), self._redis.pipeline() as pipeline:
            pipeline.delete(keys.delivery(delivery.job_id))
            pipeline.zrem(keys.DELIVERIES, delivery.job_id)
            await pipeline.execute()

    async def beat(self) -> None:
        """Say that this host's deliverer is there."""
        async with reaching_redis():
            await self._redis.set(keys.deliverer(self._host), "", ex=keys.WORKER_TTL_S)
