-- schedule(record): copies an ended job's record for its webhook, which is due now. Deliveries that were due longer ago
-- than the TTL of a copy have expired: they are removed from the set.

local function schedule(record)
  local job_id, clock = string.match(record, '[^:]+$'), redis.call('TIME')
  local delivery, now = KEY.delivery .. job_id, clock[1] + math.floor(clock[2] / 1000) / 1000
  redis.call('COPY', record, delivery, 'REPLACE')
  redis.call('HSET', delivery, 'ended_s', string.format('%.3f', now))
  redis.call('EXPIRE', delivery, TTL.delivery)
  redis.call('ZADD', KEY.deliveries, string.format('%.3f', now), job_id)
  redis.call('ZREMRANGEBYSCORE', KEY.deliveries, 0, string.format('%.3f', now - TTL.delivery))
  redis.call('EXPIRE', KEY.deliveries, TTL.delivery)
  redis.call('ZREM', KEY.promises, job_id)
end
