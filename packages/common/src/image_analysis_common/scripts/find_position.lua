-- Reads a job's record and, while it waits, its position in the queue; and how many requests its reader has left.
--
-- A follower has its leader's position. RQ's hash of the job names the queue. LPOS scans the list: 10 microseconds for
-- a thousand jobs.
--
-- KEYS
--   1 record    the job's record
--   2 requests  the reader's requests; '' if they do not matter
-- ARGV
--   1 job_id
--   2 limit   requests of the reader in a window
--   3 window  seconds
-- Writes: nothing but the end of old requests in KEYS 2.
-- Answers: {the answer of `count_requests` or nil, the record as field, value, ...}, and for a job in the queue also
-- its position, and the milliseconds until its end at the present pace, or nil if the pace is unknown.
--
-- Uses: pace, count_requests.

local verdict = KEYS[2] ~= '' and count_requests(KEYS[2], tonumber(ARGV[2]), ARGV[3], 0, '0')
local record = redis.call('HGETALL', KEYS[1])
local status, run = unpack(redis.call('HMGET', KEYS[1], 'status', 'follows'))
if status ~= 'PENDING' then return {verdict, record} end
run = run or ARGV[1]
local queue = redis.call('HGET', RQ.job .. run, 'origin')
local before = queue and redis.call('LPOS', RQ.queue .. queue, run)
if not before then return {verdict, record} end
local count, seconds = pace(RQ.finished .. queue, RQ.failed .. queue)
return {verdict, record, before + 1, count and math.ceil((before + 1) * 1000 * seconds / count)}
