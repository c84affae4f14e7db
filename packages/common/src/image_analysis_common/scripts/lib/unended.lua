-- note(set, job_id, now): adds a job to a sorted set of jobs that have not ended. It is removed when it ends.
-- is_full(set, most, now): returns whether the set holds `most` jobs, after removing those whose record has expired.

local function note(set, job_id, now)
  redis.call('ZADD', set, string.format('%.3f', now), job_id)
  redis.call('EXPIRE', set, TTL.unended_job)
end
local function is_full(set, most, now)
  if redis.call('ZCARD', set) < tonumber(most) then return false end
  redis.call('ZREMRANGEBYSCORE', set, 0, string.format('%.3f', now - TTL.unended_job))
  return redis.call('ZCARD', set) >= tonumber(most)
end
