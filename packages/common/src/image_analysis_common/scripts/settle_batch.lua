-- Settles a batch right after its jobs were queued, in the same transaction: a job that was refused, then or before,
-- has no record yet, and is added as a failed one. If there was no room for any of them, and no cached result, the
-- batch is refused: its record is deleted, and nothing is added.
--
-- KEYS
--   1 batch    the batch's record
--   2 jobs_of  the owner's jobs; '' without an owner
-- ARGV
--   1 max_deliveries  as for `enqueue`; '' for jobs without a webhook
--   2 undelivered     the error, as JSON, of a job that was refused because `max_deliveries` is reached
--   3 no_room         the error of a job that was refused for another reason when it was queued
--   4 has_result      1 if a cached result has answered a job of the batch
--   5... the other jobs, each with these words:
--        job_id
--        is_queued  1 if it was to be queued; 0 if it was refused before
--        words      the number of words of the fields
--        the fields of the failed job, of which one that was to be queued lacks the error
-- Writes: all KEYS; the record and the delivery of each failed job.
-- Answers: nil if every job that was to be queued was; 'deliveries' or 'queue', which tells the error of the others.
--
-- Uses: enlist, schedule, unended.

local batch, jobs_of = unpack(KEYS)
local max_deliveries, undelivered, no_room, has_result = unpack(ARGV, 1, 4)
local is_kept, failed, reason = has_result == '1', {}, false

local function find_reason()
  if max_deliveries == '' then return 'queue' end
  local left = max_deliveries - redis.call('ZCARD', KEY.deliveries)
  return is_full(KEY.promises, left, redis.call('TIME')[1]) and 'deliveries' or 'queue'
end

local at = 5
while at <= #ARGV do
  local job_id, is_queued, words = unpack(ARGV, at, at + 2)
  if redis.call('EXISTS', KEY.job .. job_id) == 1 then
    is_kept = true
  else
    local fields = {unpack(ARGV, at + 3, at + 2 + words)}
    if is_queued == '1' then
      reason = reason or find_reason()
      table.insert(fields, 'error')
      table.insert(fields, reason == 'deliveries' and undelivered or no_room)
    end
    table.insert(failed, {id = job_id, fields = fields})
  end
  at = at + 3 + words
end
if reason and not is_kept then
  redis.call('DEL', batch)
  return reason
end
for _, job in ipairs(failed) do
  local record = KEY.job .. job.id
  redis.call('HSET', record, unpack(job.fields))
  redis.call('EXPIRE', record, TTL.ended_job)
  if jobs_of ~= '' then enlist(jobs_of, job.id) end
  if max_deliveries ~= '' then schedule(record) end
end
return reason
