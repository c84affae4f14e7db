-- advance(record, fields, ttl): writes `fields`, of which the first is the status, into the record of a job that has
-- not ended, and publishes the job's ID if the status changed. Returns true if it wrote, nil if the job has ended. With
-- the `ttl` '', the record keeps its own; any other one is that of an ended job.
--
-- If this ends the job, its webhook is scheduled, and a follower is removed from the set that its field `counted`
-- names. The field `history` holds all statuses so far; a job whose status never changed has none.
--
-- Uses: schedule, bind_claim.

local function advance(record, fields, ttl)
  local status, history, webhook_url, follows, counted, claim =
    unpack(redis.call('HMGET', record, 'status', 'history', 'webhook_url', 'follows', 'counted', 'claim'))
  if status ~= 'PENDING' and status ~= 'PROCESSING' then return end
  local has_changed, job_id = status ~= fields[2], string.match(record, '[^:]+$')
  if has_changed then
    redis.call('HSET', record, 'history', (history or status) .. ' ' .. fields[2], unpack(fields))
  else
    redis.call('HSET', record, unpack(fields))
  end
  if ttl ~= '' then
    redis.call('EXPIRE', record, ttl)
    bind_claim(claim, job_id)
  end
  if has_changed then
    redis.call('PUBLISH', KEY.changes, job_id)
    if fields[2] ~= 'PENDING' and fields[2] ~= 'PROCESSING' then
      if webhook_url then schedule(record) end
      if follows and counted then redis.call('ZREM', counted, job_id) end
    end
  end
  return true
end
