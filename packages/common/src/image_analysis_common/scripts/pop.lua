-- Moves jobs from the queue to RQ's intermediate list, and reads what a worker needs to know of them. The images are
-- read when the jobs are started.
--
-- KEYS
--   1 queue         RQ's list of waiting jobs
--   2 intermediate  RQ's list of popped jobs
-- ARGV
--   1 limit  the most jobs to move
--   2... the jobs that the caller has moved itself; they are only read
-- Writes: KEYS 1 and 2.
-- Answers: for each job {its ID, the fields `created_at`, `retries_left` and `meta` of RQ's hash, its record as HGETALL
-- answers, 1 if its image exists, else 0}.
--
-- Uses: permit_writes.

permit_writes()
local queue, intermediate = unpack(KEYS)
local jobs = {unpack(ARGV, 2)}
for _ = 1, ARGV[1] do
  local job = redis.call('LMOVE', queue, intermediate, 'LEFT', 'RIGHT')
  if not job then break end
  table.insert(jobs, job)
end
local found = {}
for _, job in ipairs(jobs) do
  local in_rq = redis.call('HMGET', RQ.job .. job, 'created_at', 'retries_left', 'meta')
  local record, has_image = redis.call('HGETALL', KEY.job .. job), redis.call('EXISTS', KEY.image .. job)
  table.insert(found, {job, in_rq[1], in_rq[2], in_rq[3], record, has_image})
end
return found
