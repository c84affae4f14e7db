-- discard(run, status): removes a run that no worker will take from our keys and RQ's lists, and sets its status in
-- RQ's hash and registry to `failed` or `canceled`. Members of RQ's registries expire; the registry of canceled jobs,
-- too.
--
-- Uses: locate.

local function discard(run, status)
  local leader, count = unpack(redis.call('HMGET', KEY.job .. run, 'leads', 'counted'))
  if leader and redis.call('GET', leader) == run then redis.call('DEL', leader) end
  local image = KEY.image .. run
  local bytes = count and tonumber(redis.call('GET', count) or 0) or 0
  if bytes > 0 then redis.call('SET', count, math.max(bytes - redis.call('STRLEN', image), 0), 'KEEPTTL') end
  redis.call('DEL', image)
  local place, queue, executions = locate(run)
  if not place then return end
  local now, registry = redis.call('TIME')[1], (status == 'canceled' and RQ.canceled or RQ.failed) .. queue
  redis.call('LREM', RQ.queue .. queue, 0, run)
  redis.call('LREM', RQ.queue .. queue .. RQ.intermediate, 0, run)
  for _, execution in ipairs(executions or {}) do redis.call('ZREM', RQ.started .. queue, execution) end
  redis.call('HSET', RQ.job .. run, 'status', status)
  redis.call('EXPIRE', RQ.job .. run, TTL.ended_job)
  redis.call('ZREMRANGEBYSCORE', registry, 0, now)
  redis.call('ZADD', registry, now + TTL.ended_job, run)
  if status == 'canceled' then redis.call('EXPIRE', registry, TTL.ended_job) end
end
