-- enlist(list, job_id): adds a job to the sorted set of its owner's jobs, by its time in milliseconds, and removes jobs
-- that must have expired.

local function enlist(list, job_id)
  local clock, lifetime = redis.call('TIME'), TTL.waiting_job + TTL.ended_job
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('ZADD', list, string.format('%.0f', now), job_id)
  redis.call('ZREMRANGEBYSCORE', list, 0, string.format('%.0f', now - lifetime * 1000))
  redis.call('EXPIRE', list, lifetime)
end
