-- Reads the depth and the workers of queues for a scrape of the metrics.
--
-- The oldest job is not always the first one: jobs of dead workers return to the front. A dead worker stays listed for
-- a while, but its own key has expired. A worker has no `state` before its first job.
--
-- KEYS
--   1 deliveries  the jobs whose webhook is pending, by when it is due
-- ARGV
--   1... names of queues
-- Writes: nothing.
-- Answers: {the server's time, for each queue {depth, when its oldest job was created or '', states of its workers},
-- the number of pending deliveries, when the first is due or ''}.

local is_suspended, found = redis.call('EXISTS', RQ.suspended), {}
for _, name in ipairs(ARGV) do
  local oldest, states, key = '', {}, RQ.queue .. name
  for _, job in ipairs(redis.call('LRANGE', key, 0, 999)) do
    local created = redis.call('HGET', RQ.job .. job, 'created_at')
    if created and (oldest == '' or created < oldest) then oldest = created end
  end
  for _, worker in ipairs(redis.call('SMEMBERS', RQ.workers_of .. name)) do
    local is_busy = redis.call('HGET', worker, 'state') == 'busy'
    if redis.call('EXISTS', worker) == 1 then
      table.insert(states, is_busy and 'busy' or is_suspended == 1 and 'suspended' or 'idle')
    end
  end
  table.insert(found, {redis.call('LLEN', key), oldest, states})
end
local due = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {redis.call('TIME')[1], found, redis.call('ZCARD', KEYS[1]), due or ''}
