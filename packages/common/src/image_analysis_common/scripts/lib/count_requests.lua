-- count_requests(requests, limit, window_s, cost, instead): counts a client's requests in an exact sliding window, on
-- the server's clock. Returns {1 if admitted, else 0, requests left, seconds until there is room, the time of the
-- count}.
--
-- The list holds the times, in microseconds, of the requests admitted in the last window, oldest first. A refused
-- request costs nothing, so Retry-After stays correct. If the clock was set back, times in the future are dropped. The
-- seconds in the answer are those until enough of the oldest requests have left the window to make room for `cost`.

local function count_requests(requests, limit, window_s, cost, instead)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000000 + clock[2]
  local window = window_s * 1000000
  if instead ~= '0' then redis.call('LREM', requests, -1, instead) end
  local oldest, gone = redis.call('LINDEX', requests, 0), 0
  while oldest and (oldest + window <= now or tonumber(oldest) > now) do
    gone = gone + 1
    oldest = redis.call('LINDEX', requests, gone)
  end
  local used = redis.call('LLEN', requests) - gone
  local admitted = cost == 0 or used + cost <= limit
  if admitted and cost > 0 then
    for _ = 1, cost do redis.call('RPUSH', requests, string.format('%.0f', now)) end
    redis.call('PEXPIRE', requests, math.ceil(window / 1000))
    used = used + cost
    oldest = oldest or now
  elseif not admitted and used > 0 then
    oldest = redis.call('LINDEX', requests, gone + math.min(used + cost - limit, used) - 1)
  end
  -- This comes last: a full Redis does not refuse it, and then refuses no later write. A call that only reads must also
  -- work where Redis refuses all writes.
  if gone > 0 then redis.pcall('LPOP', requests, gone) end
  local reset = oldest and oldest + window - now or 0
  return {admitted and 1 or 0, math.max(limit - used, 0), math.ceil(reset / 1000000), now}
end
