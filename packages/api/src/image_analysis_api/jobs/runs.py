"""Lua about queued runs: where RQ holds one, how one is discarded, and the sorted sets of jobs that have not ended.

RQ's keys stand here by their names.
"""

from image_analysis_common import keys

# The place from which a job will come to a worker: `queue`, `intermediate` between pop and start, `started`, or
# another registry; nothing where RQ has forgotten the job. Then the name of its queue, while RQ has the job's hash, and
# the executions under way, alive or not. LPOS takes 10 microseconds for a thousand jobs.
LOCATE = """
local function locate(run)
  local queue = redis.call('HGET', 'rq:job:' .. run, 'origin')
  if not queue then return end
  local list = 'rq:queue:' .. queue
  if redis.call('LPOS', list, run) then return 'queue', queue end
  if redis.call('LPOS', list .. ':intermediate', run) then return 'intermediate', queue end
  local executions = {}
  for _, execution in ipairs(redis.call('ZRANGE', 'rq:wip:' .. queue, 0, -1)) do
    if string.match(execution, '^[^:]*') == run then table.insert(executions, execution) end
  end
  if #executions > 0 then return 'started', queue, executions end
  for _, registry in ipairs({'scheduled', 'deferred', 'ready'}) do
    if redis.call('ZSCORE', 'rq:' .. registry .. ':' .. queue, run) then return registry, queue end
  end
  return nil, queue
end
"""

# Sorted sets of jobs that have not ended, by their time. A job leaves them when it ends; one whose record has expired
# is dropped where the set would be full.
UNENDED = f"""
local function note(set, job_id, now)
  redis.call('ZADD', set, string.format('%.3f', now), job_id)
  redis.call('EXPIRE', set, {keys.UNENDED_JOB_TTL_S})
end
local function is_full(set, most, now)
  if redis.call('ZCARD', set) < tonumber(most) then return false end
  redis.call('ZREMRANGEBYSCORE', set, 0, string.format('%.3f', now - {keys.UNENDED_JOB_TTL_S}))
  return redis.call('ZCARD', set) >= tonumber(most)
end
"""

# Takes a run that will not come to a worker out of our keys and RQ's lists, and lets RQ's books say how it ended:
# `failed` or `canceled`. Members of the registries expire; that of canceled jobs is ours alone.
DISCARD = f"""
local function discard(run, status)
  local leader, count = unpack(redis.call('HMGET', '{keys.job("")}' .. run, 'leads', 'counted'))
  if leader and redis.call('GET', leader) == run then redis.call('DEL', leader) end
  local image = '{keys.image("")}' .. run
  local bytes = count and tonumber(redis.call('GET', count) or 0) or 0
  if bytes > 0 then redis.call('SET', count, math.max(bytes - redis.call('STRLEN', image), 0), 'KEEPTTL') end
  redis.call('DEL', image)
  local place, queue, executions = locate(run)
  if not place then return end
  local now, registry = redis.call('TIME')[1], 'rq:' .. status .. ':' .. queue
  redis.call('LREM', 'rq:queue:' .. queue, 0, run)
  redis.call('LREM', 'rq:queue:' .. queue .. ':intermediate', 0, run)
  for _, execution in ipairs(executions or {{}}) do redis.call('ZREM', 'rq:wip:' .. queue, execution) end
  redis.call('HSET', 'rq:job:' .. run, 'status', status)
  redis.call('EXPIRE', 'rq:job:' .. run, {keys.ENDED_JOB_TTL_S})
  redis.call('ZREMRANGEBYSCORE', registry, 0, now)
  redis.call('ZADD', registry, now + {keys.ENDED_JOB_TTL_S}, run)
  if status == 'canceled' then redis.call('EXPIRE', registry, {keys.ENDED_JOB_TTL_S}) end
end
"""
