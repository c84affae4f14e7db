-- Takes one step of a run. What other processes can change is read here, at the time of the write: an earlier read
-- could be out of date.
--
-- The step is taken only while the job belongs to this worker, which the claim command checks. A worker that was silent
-- for too long has lost its claim, and its late steps write nothing. One exception: if RQ no longer knows the job, no
-- other worker can run it, so an end is written without the claim.
--
-- Followers change together with the run. A cancelled job ends as CANCELLED, and its run continues while it has
-- followers; without any, the next step ends the run as CANCELLED. An ended record never changes again. A result that
-- answers no job is not cached; otherwise the jobs that it answers are counted.
--
-- `ended_by` names the execution that wrote an end: if the answer is lost on its way, the same call returns it again.
--
-- KEYS
--   1 record     the run's record
--   2 followers  the set of its followers
--   3 leader     the ID of the job that runs the image; '' if the caller does not know the record
--   4 image      the image's bytes
--   5 bytes      the total bytes of the model's images
--   6 result     the image's cached results; '' if the caller does not know the record
--   7 answers    the number of jobs that they have answered; '' if the caller does not know the record
--   8 rq_job     RQ's hash of the job; '' if the caller updates RQ itself
--   9 canceled   RQ's registry of canceled jobs; '' if the caller updates RQ itself
-- ARGV
--   1 job_id
--   2 cache_ttl    seconds
--   3 cache_field  the field of this result
--   4 cached       the result as JSON; '' if it is not cached
--   5 execution    the execution that ends with this step; '' for none
--   6 most         followers to change in one step
--   7 words        the number of words of the fields
--   8... the fields, of which the first is the status; then the claim command, which answers nil or 0 if the job does
--        not belong to this worker, or no longer; then RQ's commands; each command preceded by its number of words
-- Writes: all KEYS; what `advance_followers` writes; what RQ's commands write.
-- Answers: the run's new status; nil if nothing was written.
--
-- Uses: advance, advance_followers.

-- Runs the command at an index of ARGV, which holds its number of words; an empty command answers true.
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
