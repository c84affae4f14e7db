-- Checks runs that are due, a bounded number in one call, so that every accepted job ends even if no worker takes it or
-- RQ loses it.
--
-- A run is over once its job has ended and no follower is left. The record of a cancelled job, kept for its run, then
-- gets the TTL of an ended job. A run that has waited too long fails: at once if it is in the queue, otherwise at the
-- second check, because a worker may just have popped it. A run that RQ has lost is queued again if RQ's hash of the
-- job and the image still exist; otherwise it fails.
--
-- A call may do `units` of work: a unit ends one follower, or scans `list_entries` entries of a list.
--
-- KEYS: none. RQ's hash of a job names its queue, and so the lists.
-- ARGV
--   1 check_s       how long after its submission, and after each check, a run is checked
--   2 confirm_s     after how long a run that RQ seems to have lost is checked again
--   3 pause_ms      how long no other process may call this script
--   4 expired       the error of a job that waited too long, as JSON
--   5 lost          the error of a job that RQ has lost, as JSON
--   6 most          runs to check in one call
--   7 units         units of work in one call
--   8 list_entries  entries of a list that cost one unit
-- Writes: runs, runs_pause; the records, followers, followers_end and answered of the runs that are due; what `discard`
-- writes of a run that failed; RQ's hash and queue of a run that is queued again.
-- Answers: {changed runs, each {job ID, status, error as JSON or '' if queued again}, 1 if there is more to do, else
-- 0}.
--
-- Uses: advance, advance_followers, count_answers, locate, discard, permit_writes.

local check_s, confirm_s, pause_ms, expired, lost = unpack(ARGV, 1, 5)
local most_runs, units, list_entries = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local clock, found = redis.call('TIME'), {}
local now = clock[1] + clock[2] / 1000000
local until_s = string.format('%.3f', now - check_s)
local due = redis.call('ZRANGEBYSCORE', KEY.runs, '-inf', until_s, 'LIMIT', 0, most_runs)
if #due == 0 then return {found, 0} end
permit_writes()
if not redis.call('SET', KEY.runs_pause, '', 'NX', 'PX', pause_ms) then return {found, 1} end

local function check_again(run, at) redis.call('ZADD', KEY.runs, string.format('%.3f', at), run) end

local function settle(followers, end_key, most)
  local follower, status = redis.call('SRANDMEMBER', followers), redis.call('LINDEX', end_key, 1)
  if not follower then return redis.call('DEL', end_key) end
  local hash = redis.call('HGET', follower, 'image_hash') or ''
  local ended = advance_followers(followers, {}, TTL.ended_job, most)
  if status == 'COMPLETED' then
    count_answers(KEY.result .. hash, KEY.answered .. hash, ended)
  end
  return ended
end

local function fail(run, record, failure, most)
  local fields = {'status', 'FAILED', 'error', failure}
  local is_cancelled = redis.call('HEXISTS', record, 'cancelled') == 1
  advance(record, is_cancelled and {'status', 'CANCELLED'} or fields, TTL.ended_job)
  discard(run, is_cancelled and 'canceled' or 'failed')
  check_again(run, now)
  table.insert(found, {run, redis.call('HGET', record, 'status') or 'FAILED', failure})
  return advance_followers(KEY.followers .. run, fields, TTL.ended_job, most)
end

local function requeue(run, record, queue, most)
  redis.call('HSET', RQ.job .. run, 'status', 'queued')
  redis.call('LPUSH', RQ.queue .. queue, run)
  redis.call('HDEL', record, 'missed_s')
  check_again(run, now)
  table.insert(found, {run, 'PENDING', ''})
  advance(record, {'status', 'PENDING'}, '')
  return advance_followers(KEY.followers .. run, {'status', 'PENDING'}, '', most)
end

local function is_alive(queue, executions)
  for _, execution in ipairs(executions or {}) do
    if tonumber(redis.call('ZSCORE', RQ.started .. queue, execution)) > now then return true end
  end
end

local function can_run(run, queue)
  local status = queue and redis.call('HGET', RQ.job .. run, 'status')
  local has_ended = status == 'finished' or status == 'failed' or status == 'stopped' or status == 'canceled'
  return status and not has_ended and redis.call('EXISTS', KEY.image .. run) == 1
end

local function check(run, most)
  local record, followers = KEY.job .. run, KEY.followers .. run
  local end_key = KEY.followers_end .. run
  if redis.call('EXISTS', end_key) == 1 then
    check_again(run, now)
    return settle(followers, end_key, most)
  end
  local status, until_s, missed_s = unpack(redis.call('HMGET', record, 'status', 'waits_until_s', 'missed_s'))
  local is_open = status == 'PENDING' or status == 'PROCESSING'
  if not is_open and redis.call('EXISTS', followers) == 0 then
    redis.call('ZREM', KEY.runs, run)
    if redis.call('TTL', record) > TTL.ended_job then redis.call('EXPIRE', record, TTL.ended_job) end
    return 0
  end
  local place, queue, executions = locate(run)
  local cost = queue and redis.call('LLEN', RQ.queue .. queue) / list_entries or 0
  local is_late = not until_s or now >= tonumber(until_s)
  if place and (not is_late or is_alive(queue, executions)) then
    if missed_s then redis.call('HDEL', record, 'missed_s') end
    check_again(run, now)
  elseif status and place ~= 'queue' and (not missed_s or now - missed_s < tonumber(confirm_s)) then
    if not missed_s then redis.call('HSET', record, 'missed_s', string.format('%.3f', now)) end
    check_again(run, now - check_s + confirm_s)
  elseif not is_late and can_run(run, queue) then
    cost = cost + requeue(run, record, queue, most)
  else
    cost = cost + fail(run, record, is_late and expired or lost, most)
  end
  return cost
end

local left = units
for _, run in ipairs(due) do
  if left < 1 then break end
  left = left - 1 - check(run, math.floor(left))
end
local has_more = #due == most_runs or left < 1 or redis.call('ZCOUNT', KEY.runs, 0, 0) > 0
return {found, has_more and 1 or 0}
