-- Requeues jobs that were popped too long ago and never started. Like RQ, it stores when a job was first seen there.
-- Both happen in one script: a time stored after the job's start would make its next pop look like a loss.
--
-- KEYS
--   1 intermediate  RQ's list of popped jobs
--   2 queue         RQ's list of waiting jobs
-- ARGV
--   1 after_s  how long a job may be there
-- Writes: KEYS 1, 2, and RQ's `first_seen` key of each job in KEYS 1.
-- Answers: the IDs of the requeued jobs.
--
-- Uses: permit_writes.

permit_writes()
local now, found = redis.call('TIME'), {}
for _, job in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local seen_key = KEYS[1] .. RQ.first_seen .. job
  local first_seen = redis.call('GET', seen_key)
  if not first_seen then
    redis.call('SET', seen_key, now[1] .. '.' .. string.format('%06d', now[2]), 'EX', 60)
  elseif now[1] + now[2] / 1000000 - first_seen > tonumber(ARGV[1]) then
    redis.call('LREM', KEYS[1], 1, job)
    redis.call('LPUSH', KEYS[2], job)
    redis.call('DEL', seen_key)
    table.insert(found, job)
  end
end
return found
