-- Cancels an owner's job, or deletes it if it has ended.
--
-- A waiting job is removed from the queue. If a waiting job has followers, it is CANCELLED, and its run is kept until
-- the last of them ends. A job that a worker has gets the field `cancelled`, and becomes CANCELLED when it ends. A job
-- that RQ has lost is CANCELLED at once. An ended job is deleted, with its webhook and the claim of its idempotency
-- key; and with its image's results and embeddings, if they have answered no other job.
--
-- KEYS
--   1 record  the job's record
-- ARGV
--   1 job_id
--   2 owner   '' without one
-- Writes: KEYS 1; the followers, leader, image, bytes and RQ's keys of its run; of a deleted job also its claim,
-- delivery, deliveries, jobs_of, answered, result, embedding.
-- Answers: 'UNKNOWN' if the owner has no such job, 'CANCELLED', 'ENDING' if a worker has it, or 'FORGOTTEN'.
--
-- Uses: advance, locate, discard, permit_writes.

local record, job_id, owner = KEYS[1], ARGV[1], ARGV[2]
local cancelled = {'status', 'CANCELLED'}

local function withdraw(run, status)
  local place = locate(run)
  if place and (place ~= 'queue' or status == 'PROCESSING') then return false end
  discard(run, 'canceled')
  return true
end

local status, owned_by, follows, hash = unpack(redis.call('HMGET', record, 'status', 'owner', 'follows', 'image_hash'))
if not status or (owned_by or '') ~= owner then return 'UNKNOWN' end
if status == 'CANCELLED' then return status end
permit_writes()
if status == 'PENDING' or status == 'PROCESSING' then
  if follows then
    local followers = KEY.followers .. follows
    redis.call('SREM', followers, record)
    advance(record, cancelled, TTL.ended_job)
    local is_unwanted = redis.call('HGET', KEY.job .. follows, 'status') == 'CANCELLED'
    if is_unwanted and redis.call('SCARD', followers) == 0 then withdraw(follows) end
    return 'CANCELLED'
  end
  local is_followed = redis.call('SCARD', KEY.followers .. job_id) > 0
  if is_followed and status == 'PENDING' then
    advance(record, cancelled, '')
    return 'CANCELLED'
  end
  if not is_followed and withdraw(job_id, status) then
    advance(record, cancelled, TTL.ended_job)
    return 'CANCELLED'
  end
  redis.call('HSET', record, 'cancelled', '1')
  return 'ENDING'
end
local claim = redis.call('HGET', record, 'claim')
if claim and redis.call('HGET', claim, 'id') == job_id then redis.call('DEL', claim) end
redis.call('DEL', record, KEY.delivery .. job_id)
redis.call('ZREM', KEY.deliveries, job_id)
redis.call('ZREM', KEY.jobs_of .. owner, job_id)
local queue = redis.call('HGET', RQ.job .. job_id, 'origin')
if queue then
  redis.call('ZREM', RQ.finished .. queue, job_id)
  redis.call('ZREM', RQ.failed .. queue, job_id)
  redis.call('DEL', RQ.job .. job_id, RQ.results .. job_id)
end
local answered = KEY.answered .. hash
if status == 'COMPLETED' and redis.call('DECR', answered) <= 0 then
  redis.call('DEL', answered, KEY.result .. hash, KEY.embedding .. hash)
end
return 'FORGOTTEN'
