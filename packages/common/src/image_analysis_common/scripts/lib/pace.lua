-- pace(finished, failed): returns how many jobs of a queue have ended lately, and in how many seconds; nil if none has.
--
-- It looks at the last ten seconds, or at the last minute if no job ended in ten. The seconds are counted from the
-- first end in that window: a queue that was empty before was not slow. RQ's registries are sorted by when a member
-- expires.

local function pace(finished, failed)
  local now = redis.call('TIME')[1]
  for _, window in ipairs({10, 60}) do
    local count, longest_ago = 0, 0
    for registry, ttl in pairs({[finished] = TTL.finished_job, [failed] = TTL.ended_job}) do
      local since = now + ttl - window
      local first = redis.call('ZRANGEBYSCORE', registry, since, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      if first then
        count = count + redis.call('ZCOUNT', registry, since, '+inf')
        longest_ago = math.max(longest_ago, now + ttl - first)
      end
    end
    if count > 0 then return count, longest_ago + 1 end
  end
end
