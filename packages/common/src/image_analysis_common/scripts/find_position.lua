-- Reads a job's record and, while it waits, its position in the queue.
--
-- A follower has its leader's position. RQ's hash of the job names the queue. LPOS scans the list: 10 microseconds for
-- a thousand jobs.
--
-- KEYS
--   1 record  the job's record
-- ARGV
--   1 job_id
-- Writes: nothing.
-- Answers: {the record as field, value, ...}, and for a job in the queue {record, position, milliseconds until its end
-- at the present pace, or nil if the pace is unknown}.
--
-- Uses: pace.

local record = redis.call('HGETALL', KEYS[1])
local status, run = unpack(redis.call('HMGET', KEYS[1], 'status', 'follows'))
if status ~= 'PENDING' then return {record} end
run = run or ARGV[1]
local queue = redis.call('HGET', RQ.job .. run, 'origin')
local before = queue and redis.call('LPOS', RQ.queue .. queue, run)
if not before then return {record} end
local count, seconds = pace(RQ.finished .. queue, RQ.failed .. queue)
return {record, before + 1, count and math.ceil((before + 1) * 1000 * seconds / count)}
