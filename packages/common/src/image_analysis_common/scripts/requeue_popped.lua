-- Brings jobs back into the queue that have been between pop and start for too long. Like RQ, it notes when a job was
-- first seen there. It does both in one step: a note after the job's start would make its next pop look like a loss.
--
-- KEYS
--   1 intermediate  RQ's list of popped jobs
--   2 queue         RQ's list of waiting jobs
-- ARGV
--   1 after_s  how long a job may be there
-- Writes: KEYS 1, 2, and RQ's note of each job in KEYS 1.
-- Answers: the IDs of the jobs that are back in the queue.

local now, found = redis.call('TIME'), {}
for _, job in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local note = KEYS[1] .. RQ.first_seen .. job
  local first_seen = redis.call('GET', note)
  if not first_seen then
    redis.call('SET', note, now[1] .. '.' .. string.format('%06d', now[2]), 'EX', 60)
  elseif now[1] + now[2] / 1000000 - first_seen > tonumber(ARGV[1]) then
    redis.call('LREM', KEYS[1], 1, job)
    redis.call('LPUSH', KEYS[2], job)
    redis.call('DEL', note)
    table.insert(found, job)
  end
end
return found
