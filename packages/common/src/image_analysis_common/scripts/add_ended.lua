-- Adds the record of a job that ends at once, because a cached result answers it.
--
-- With a client's list of requests, the request is counted first, and a refused one does nothing. With an announcement,
-- the job is added only if the image's cached result is still the one that the caller knows.
--
-- KEYS
--   1 record        the job's record
--   2 answered      the number of jobs that the image's results have answered; '' for a job that failed
--   3 jobs_of       the owner's jobs
--   4 result        the image's cached results
--   5 announcement  of the model, by its latest worker; '' if the caller has just read the result
--   6 requests      the client's requests; '' if this one is counted
-- ARGV
--   1 job_id
--   2 owner        '' without one
--   3 has_webhook  1 or 0
--   4 known        how the announcement begins whose results `cache_field` names
--   5 cache_field  the field of the result
--   6 deep_field   the field of another result that would answer the job; '' if there is none
--   7 text         the result that the caller knows
--   8 limit        requests of the client in a window
--   9 window       seconds
--   10... the record's fields
-- Writes: KEYS 1, 2, 3, 6; the delivery of a job that has a webhook.
-- Answers: {outcome, the answer of `count_requests` or nil}. The outcome is nil if the job was added. In all other
-- cases nothing but the request was written: 'limited'; 'unknown' if the announcement is another one; 'other' if the
-- result is another one, or is gone.
--
-- Uses: enlist, schedule, count_answers, count_requests, bind_claim.

local record, answered, jobs_of, result, announcement, requests = unpack(KEYS)
local job_id, owner, has_webhook, known, cache_field, deep_field, text, limit, window_s = unpack(ARGV, 1, 9)
local verdict = false
if requests ~= '' then
  verdict = count_requests(requests, tonumber(limit), window_s, 1, '0')
  if verdict[1] == 0 then return {'limited', verdict} end
end
if announcement ~= '' then
  local announced = redis.call('GET', announcement)
  if not announced or string.sub(announced, 1, #known) ~= known then return {'unknown', verdict} end
  local cached = redis.call('HGET', result, cache_field)
  if not cached and deep_field ~= '' then cached = redis.call('HGET', result, deep_field) end
  if cached ~= text then return {'other', verdict} end
end
redis.call('HSET', record, unpack(ARGV, 10))
redis.call('EXPIRE', record, TTL.ended_job)
bind_claim(redis.call('HGET', record, 'claim'), job_id)
if answered ~= '' then count_answers(result, answered, 1) end
if owner ~= '' then enlist(jobs_of, job_id) end
if has_webhook == '1' then schedule(record) end
return {false, verdict}
