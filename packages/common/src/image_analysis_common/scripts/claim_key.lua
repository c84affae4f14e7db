-- Claims an idempotency key for a request, unless an earlier request has claimed it and its job or batch exists, or may
-- still be accepted. A batch exists as long as one of its jobs.
--
-- KEYS
--   1 claim  the claim of the key
-- ARGV
--   1 fingerprint  of the request
--   2 id           of the job or batch that the request will create
--   3 work         prefix of the key of a job or batch
--   4 busy         seconds that accepting the request can take
-- Writes: KEYS 1.
-- Answers: nil if the key is claimed now; 'other' if it was used for a different request; 'busy' while its request is
-- being accepted; the ID of its job or batch otherwise.

local fingerprint, id, work, busy = unpack(ARGV)
local now = redis.call('TIME')[1]
local function exists(prefix, work_id)
  if prefix ~= KEY.batch then return redis.call('EXISTS', prefix .. work_id) == 1 end
  local batch = redis.call('GET', prefix .. work_id) or ''
  for job_id in string.gmatch(batch, '"(%x+%-[%x%-]+)"') do
    if redis.call('EXISTS', KEY.job .. job_id) == 1 then return true end
  end
  return false
end
local kept = redis.call('HMGET', KEYS[1], 'fingerprint', 'id', 'claimed_s', 'work', 'busy_s')
if kept[1] then
  -- The earlier request may be of another kind than this one. The claims of the release before do not say.
  local is_done = exists(kept[4] or work, kept[2])
  -- The clock may have been set back: a claim from the future is not kept until then.
  if is_done or math.abs(now - kept[3]) < tonumber(kept[5] or busy) then
    if kept[1] ~= fingerprint then return 'other' end
    return is_done and kept[2] or 'busy'
  end
end
redis.call('HSET', KEYS[1], 'fingerprint', fingerprint, 'id', id, 'claimed_s', now, 'work', work, 'busy_s', busy)
redis.call('EXPIRE', KEYS[1], TTL.waiting_job)
return false
