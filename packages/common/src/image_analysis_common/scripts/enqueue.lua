-- Accepts a job: queues a run for it, or lets it follow the run of the same image.
--
-- With a client's list of requests, the request is counted first, and a refused one does nothing. With an announcement,
-- the image's cached result is returned if there is one.
--
-- A follower's record changes together with the leader's, and nothing is queued. An urgent follower moves a waiting
-- leader to the front. A cancelled leader keeps running for its followers; its status is theirs. A leader is not
-- followed if RQ has lost it, if it has waited too long, or if it can only fail, without an attempt or an image left.
--
-- KEYS
--   1 leader      the ID of the job that runs this image
--   2 record      the new job's record
--   3 result      the image's cached results
--   4 queue       RQ's list of waiting jobs
--   5 bytes       the total bytes of the model's images; it restarts at 0 if nothing waits, was popped or runs, because
--                 expired images are still counted
--   6 finished    RQ's registry of finished jobs
--   7 failed      RQ's registry of failed jobs
--   8 started     RQ's registry of executions
--   9 jobs_of     the owner's jobs; '' without an owner
--   10 following  the model's followers that have not ended
--   11 announcement  of the model, by its latest worker; '' if the caller has read it
--   12 workers       the model's workers by their last heartbeat
--   13 requests      the client's requests; '' if this one is counted
-- ARGV
--   1 job_id
--   2 cache_field     the field of a result that would answer the job; '' if none may
--   3 size            bytes of the image
--   4 is_urgent       1 for a job that is put at the front of the queue
--   5 waiting_s       how long it may wait for a worker
--   6 max_depth       waiting jobs
--   7 max_bytes       bytes of all images
--   8 max_followers
--   9 max_deliveries  webhooks that are pending or belong to jobs that have not ended; '' for a job without a webhook
--   10 known          how the announcement begins whose results `cache_field` names
--   11 deep_field     the field of another result that would answer the job; '' if there is none
--   12 limit          requests of the client in a window
--   13 window         seconds
--   14 fields         the number of words of the record's fields
--   15... the fields; then RQ's commands that queue the job, each preceded by its number of words
-- Writes: KEYS 1, 2, 4, 5, 9, 10, 13, the leader's followers, promises, runs, and what RQ's commands write.
-- Answers: {outcome, the answer of `count_requests` or nil, the number of the model's live workers}. The outcome is nil
-- if the job leads; the leader's ID if it follows. In all other cases nothing but the request was written: 'limited';
-- 'unknown' if the announcement is another one; 'cached' or {'cached', the result} if the result is in the cache;
-- 'deliveries' if `max_deliveries` is reached; {'images' or 'followers', how many wait, seconds that half of the queue
-- takes at the present pace} if another limit is reached.
--
-- Uses: enlist, pace, locate, unended, count_requests, run.

local function can_run(run)
  local has_attempts = redis.call('HGET', RQ.job .. run, 'retries_left') ~= '0'
  return has_attempts and redis.call('EXISTS', KEY.image .. run) == 1
end

local leader, record, result, queue, bytes_key, finished, failed, started, jobs_of, following = unpack(KEYS)
local announcement, workers, requests = unpack(KEYS, 11)
local job_id, cache_field, size, is_urgent, waiting_s = unpack(ARGV, 1, 5)
local max_depth, max_bytes, max_followers, max_deliveries = unpack(ARGV, 6, 9)
local known, deep_field, limit, window_s, fields = unpack(ARGV, 10, 14)
local commands = 15 + fields
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local depth = redis.call('LLEN', queue)
local function accept()
  redis.call('HSET', record, unpack(ARGV, 15, commands - 1))
  redis.call('EXPIRE', record, TTL.unended_job)
  if max_deliveries ~= '' then note(KEY.promises, job_id, now) end
  if jobs_of ~= '' then enlist(jobs_of, job_id) end
end
local function refuse(what, count)
  local ended, seconds = pace(finished, failed)
  return {what, count, math.ceil(math.max(depth, 1) / 2 * (seconds or 60) / (ended or 1))}
end
local function decide()
  if cache_field ~= '' and redis.call('HEXISTS', result, cache_field) == 1 then return 'cached' end
  if max_deliveries ~= '' then
    local left = max_deliveries - redis.call('ZCARD', KEY.deliveries)
    if is_full(KEY.promises, left, now) then return 'deliveries' end
  end
  local leading = redis.call('GET', leader)
  if leading then
    local status, until_s = unpack(redis.call('HMGET', KEY.job .. leading, 'status', 'waits_until_s'))
    if status == 'CANCELLED' then
      local follower = redis.call('SRANDMEMBER', KEY.followers .. leading)
      status = follower and redis.call('HGET', follower, 'status')
    end
    local can_wait = status == 'PROCESSING' or (status == 'PENDING' and (not until_s or now < tonumber(until_s)))
    if can_wait and locate(leading) and can_run(leading) then
      if is_full(following, max_followers, now) then return refuse('followers', redis.call('ZCARD', following)) end
      redis.call('SADD', KEY.followers .. leading, record)
      redis.call('EXPIRE', KEY.followers .. leading, TTL.unended_job)
      accept()
      redis.call('HSET', record, 'status', status, 'follows', leading, 'counted', following)
      note(following, job_id, now)
      if is_urgent == '1' and redis.call('LREM', queue, 1, leading) == 1 then
        redis.call('LPUSH', queue, leading)
      end
      return leading
    end
  end
  local is_idle = depth == 0 and redis.call('EXISTS', queue .. RQ.intermediate, started) == 0
  local bytes = (not is_idle and redis.call('GET', bytes_key) or 0) + size
  if depth >= tonumber(max_depth) or bytes > tonumber(max_bytes) then return refuse('images', depth) end
  redis.call('SET', bytes_key, bytes, 'EX', TTL.unended_job)
  redis.call('SET', leader, job_id, 'EX', TTL.unended_job)
  accept()
  run(commands)
  local until_s = string.format('%.3f', now + waiting_s)
  redis.call('HSET', record, 'leads', leader, 'counted', bytes_key, 'waits_until_s', until_s)
  note(KEY.runs, job_id, now)
  return false
end

local verdict, live = false, 0
if requests ~= '' then
  verdict = count_requests(requests, tonumber(limit), window_s, 1, '0')
  if verdict[1] == 0 then return {'limited', verdict, live} end
end
if announcement ~= '' then
  local announced = redis.call('GET', announcement)
  if not announced or string.sub(announced, 1, #known) ~= known then return {'unknown', verdict, live} end
  local text = redis.call('HGET', result, cache_field)
  if not text and deep_field ~= '' then text = redis.call('HGET', result, deep_field) end
  if text then return {{'cached', text}, verdict, live} end
  live = redis.call('ZCOUNT', workers, clock[1] - TTL.worker, '+inf')
end
return {decide(), verdict, live}
