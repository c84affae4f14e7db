-- Takes one step of a run. What depends on others is decided here, when it is written: a read from before is out of
-- date.
--
-- The step is taken only while the job is this worker's: its claim says so. A worker that was silent for too long has
-- lost its claim, and nothing of what it does too late is written. Only an end is written without RQ: if RQ no longer
-- knows the job, nobody else can run it, and the answer is true all the same.
--
-- Followers take every step with the run. A job that its owner cancelled ends as CANCELLED, and its run goes on while
-- anybody follows it; if nobody does, any other step becomes that end. An ended record never changes again. A result
-- that answers nobody is not cached; of one that is, the jobs that it answers are counted.
--
-- `ended_by` names the execution that wrote an end: if the answer is lost on its way, the same call gives it again.
--
-- KEYS
--   1 record     the run's record
--   2 followers  the records that take every step with it
--   3 leader     the ID of the job that runs the image; '' where the record is not known
--   4 image      the image's bytes
--   5 bytes      the count of the bytes of all images of the model
--   6 result     the image's cached results; '' where the record is not known
--   7 answers    the count of their answers; '' where the record is not known
--   8 rq_job     RQ's hash of the job; '' if RQ's books are the caller's
--   9 canceled   RQ's registry of canceled jobs; '' if RQ's books are the caller's
-- ARGV
--   1 job_id
--   2 cache_ttl    seconds
--   3 cache_field  where in the results this one goes
--   4 cached       the result as JSON; '' if it is not cached
--   5 execution    the execution whose end this is; '' for none
--   6 most         followers that one step moves on
--   7 words        how many words the fields have
--   8... the fields, of which the first is the status; then the command that answers nil or 0 if the job is not, or no
--        longer, this worker's; then the commands for RQ's books; each after its number of words
-- Writes: all KEYS; what `advance_followers` writes; what RQ's commands write.
-- Answers: the status that the run has reached; nil if nothing was written.
--
-- Uses: advance, advance_followers.

-- Runs the command at an index of ARGV, where its length stands before its words; an empty one answers true.
local function run(at)
  local count = tonumber(ARGV[at])
  if count == 0 then return true end
  return redis.call(unpack(ARGV, at + 1, at + count))
end

local record, followers, leader, image, bytes, result, answers, rq_job, canceled = unpack(KEYS)
local job_id, cache_ttl, cache_field, cached, execution, most = unpack(ARGV, 1, 6)
local at = 8 + ARGV[7]
local fields = {unpack(ARGV, 8, at - 1)}
local is_end = fields[2] ~= 'PENDING' and fields[2] ~= 'PROCESSING'

local claim = run(at)
at = at + 1 + ARGV[at]
local is_in_rq = rq_job == '' or redis.call('EXISTS', rq_job) == 1
local status, mark, ended_by = unpack(redis.call('HMGET', record, 'status', 'cancelled', 'ended_by'))
if not claim or claim == 0 then
  if execution ~= '' and ended_by == execution then return status end
  if is_in_rq then return end
end
if not is_in_rq and not is_end then return end

local is_cancelled = mark or status == 'CANCELLED'
local is_unwanted = (is_cancelled or not status) and redis.call('EXISTS', followers) == 0
if is_unwanted and not is_end and leader ~= '' then fields, is_end = {'status', 'CANCELLED'}, true end
local ttl = is_end and TTL.ended_job or ''

local answered, has_moved = 0, false
if is_end and is_cancelled then
  has_moved = advance(record, {'status', 'CANCELLED'}, ttl)
elseif advance(record, fields, ttl) then
  answered, has_moved = 1, true
end
answered = answered + advance_followers(followers, fields, ttl, tonumber(most))
if cached ~= '' and answered > 0 then
  if redis.call('EXISTS', result) == 0 then redis.call('DEL', answers) end
  redis.call('HSET', result, cache_field, cached)
  redis.call('EXPIRE', result, cache_ttl)
  redis.call('INCRBY', answers, answered)
  redis.call('EXPIRE', answers, cache_ttl)
end
if is_end then
  if redis.call('GET', leader) == job_id then redis.call('DEL', leader) end
  local size = redis.call('STRLEN', image)
  redis.call('DEL', image)
  local left = tonumber(redis.call('GET', bytes) or 0)
  if left > 0 then redis.call('SET', bytes, math.max(left - size, 0), 'KEEPTTL') end
  if has_moved and execution ~= '' then redis.call('HSET', record, 'ended_by', execution) end
end

if rq_job ~= '' and is_in_rq then
  if is_end and (is_cancelled or is_unwanted) then
    local now = redis.call('TIME')[1]
    redis.call('HSET', rq_job, 'status', 'canceled')
    redis.call('EXPIRE', rq_job, ttl)
    redis.call('ZREMRANGEBYSCORE', canceled, 0, now)
    redis.call('ZADD', canceled, now + ttl, job_id)
    redis.call('EXPIRE', canceled, ttl)
  else
    while at <= #ARGV do
      run(at)
      at = at + 1 + ARGV[at]
    end
  end
end
if not is_end or answered > 0 then return fields[2] end
return is_cancelled and 'CANCELLED' or nil
