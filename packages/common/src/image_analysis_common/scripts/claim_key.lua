-- Claims an idempotency key for a request, unless an earlier request holds it: its work is there, or may still come.
--
-- KEYS
--   1 claim  what the key has led to
-- ARGV
--   1 fingerprint  of the request
--   2 id           under which the work will be taken in
--   3 work         prefix of the key under which work is found by its ID
--   4 busy         seconds that taking it in can last
-- Writes: KEYS 1.
-- Answers: nil if the key is claimed; 'other' if it came with another request; 'busy' while its request is taken in;
-- the ID of its work.

local fingerprint, id, work, busy = unpack(ARGV)
local now = redis.call('TIME')[1]
local kept = redis.call('HMGET', KEYS[1], 'fingerprint', 'id', 'claimed_s')
if kept[1] then
  local is_done = redis.call('EXISTS', work .. kept[2]) == 1
  if is_done or now - kept[3] < tonumber(busy) then
    if kept[1] ~= fingerprint then return 'other' end
    return is_done and kept[2] or 'busy'
  end
end
redis.call('HSET', KEYS[1], 'fingerprint', fingerprint, 'id', id, 'claimed_s', now)
redis.call('EXPIRE', KEYS[1], TTL.waiting_job)
return false
