-- enlist(list, job_id): adds a job to the sorted set of its owner's jobs, by its time in milliseconds, and removes some
-- whose record has expired or was deleted. Of three that are drawn at each addition, at most one can be a dead one on
-- average, so a third of the set at most is dead if its owner submits at a steady pace.

local function enlist(list, job_id)
  local clock, lifetime = redis.call('TIME'), TTL.waiting_job + TTL.ended_job
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('ZADD', list, string.format('%.0f', now), job_id)
  for _, drawn in ipairs(redis.call('ZRANDMEMBER', list, 3)) do
    if redis.call('EXISTS', KEY.job .. drawn) == 0 then redis.call('ZREM', list, drawn) end
  end
  redis.call('ZREMRANGEBYSCORE', list, 0, string.format('%.0f', now - lifetime * 1000))
  redis.call('EXPIRE', list, lifetime)
end
