-- Counts a client's requests in an exact sliding window, on the server's clock.
--
-- The list holds the times, in microseconds, of the requests admitted in the last window, oldest first. Refused
-- requests are not stored, so Retry-After stays correct. If the clock was set back, times in the future are dropped.
-- The seconds in the answer are those until enough of the oldest requests have left the window to make room for
-- `whole`.
--
-- KEYS
--   1 requests  the client's list
-- ARGV
--   1 limit   requests in a window
--   2 window  seconds
--   3 cost    requests to count now; 0 only reads
--   4 whole   the total cost of the request, including what was counted before
-- Writes: KEYS 1.
-- Answers: {1 if admitted, else 0, requests left, seconds until there is room}.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit, window, cost, whole = tonumber(ARGV[1]), ARGV[2] * 1000000, tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = redis.call('LINDEX', KEYS[1], 0)
while oldest and (oldest + window <= now or tonumber(oldest) > now) do
  redis.call('LPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], 0)
end
local used = redis.call('LLEN', KEYS[1])
local admitted = cost == 0 or used + cost <= limit
if admitted and cost > 0 then
  for _ = 1, cost do redis.call('RPUSH', KEYS[1], string.format('%.0f', now)) end
  redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
  used = used + cost
  oldest = oldest or now
elseif not admitted then
  oldest = redis.call('LINDEX', KEYS[1], math.min(used + whole - limit, used) - 1)
end
local reset = oldest and oldest + window - now or 0
return {admitted and 1 or 0, math.max(limit - used, 0), math.ceil(reset / 1000000)}
