-- Reads a page of an owner's jobs, newest first, starting after a cursor. Jobs of the same millisecond are ordered by
-- ID, the greatest first. Expired jobs are removed from the owner's set.
--
-- KEYS
--   1 jobs_of  the owner's jobs
-- ARGV
--   1 limit        jobs in a page
--   2 wanted       the requested status; '' for any
--   3 newest       the cursor's time; '+inf' without a cursor
--   4 after        the cursor's job ID; '' without a cursor
--   5 max_scanned  jobs to look at: if few have the status, a page is shorter than `limit`
-- Writes: KEYS 1.
-- Answers: {jobs, each {job ID, time, record as field, value, ...}, {time, ID} of the last job looked at, or {} if
-- there are no more}.

local limit, wanted, newest, after = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local max_scanned, found, gone, scanned, offset, last = tonumber(ARGV[5]), {}, {}, 0, 0, nil
while not last do
  local page = redis.call('ZREVRANGEBYSCORE', KEYS[1], newest, '-inf', 'WITHSCORES', 'LIMIT', offset, 100)
  for at = 1, #page, 2 do
    local job_id, time = page[at], page[at + 1]
    if not (time == newest and job_id >= after) then
      local key = KEY.job .. job_id
      -- Most records may have another status: those are not read in full.
      local is_wanted = wanted == '' or redis.call('HGET', key, 'status') == wanted
      local record = is_wanted and redis.call('HGETALL', key) or {}
      if #record > 0 then
        table.insert(found, {job_id, time, record})
      elseif is_wanted or redis.call('EXISTS', key) == 0 then
        table.insert(gone, job_id)
      end
      scanned = scanned + 1
      if #found == limit or scanned == max_scanned then
        last = {time, job_id}
        break
      end
    end
  end
  offset = offset + 100
  if #page < 200 then break end
end
for _, job_id in ipairs(gone) do redis.call('ZREM', KEYS[1], job_id) end
return {found, last or {}}
