-- Makes a delivery due again after a delay, unless its job was deleted, or another deliverer has claimed it since
-- because the lease had expired.
--
-- KEYS
--   1 deliveries  the jobs whose webhook is pending, by when it is due
--   2 delivery    the copy of the job's record
-- ARGV
--   1 job_id
--   2 attempts  the attempt that failed
--   3 delay     seconds
-- Writes: KEYS 1.
-- Answers: nothing.
--
-- Uses: permit_writes.

if redis.call('HGET', KEYS[2], 'attempts') ~= ARGV[2] then return end
permit_writes()
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.3f', clock[1] + clock[2] / 1000000 + ARGV[3]), ARGV[1])
