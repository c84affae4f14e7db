-- Claims deliveries that are due. Claiming a delivery postpones it by a lease; if this deliverer dies, another retries
-- it.
--
-- A receiver is a host and a port, however the URL writes them. It may have as many attempts in progress as remain for
-- all others: one slow receiver gets at most half of all attempts, the next one half of the rest. Names of hosts are
-- free, so the number of retries is limited too: what hangs cannot keep first attempts waiting. If no delivery that was
-- looked at can be claimed, all of them are postponed, so that the next call sees those behind them. A delivery
-- without a copy of its record was deleted or has expired.
--
-- KEYS
--   1 deliveries  the jobs whose webhook is pending, by when it is due
-- ARGV
--   1 free         deliveries to claim at most
--   2 lease        seconds
--   3 aside        seconds
--   4 max_scanned  deliveries to look at
--   5 retries      of the claimed deliveries, how many may have been claimed before
--   6... pairs of a receiver and the number of its attempts in progress
-- Writes: KEYS 1; `attempts` in the claimed deliveries.
-- Answers: {deliveries, each {job ID, receiver, its copy of the record as field, value, ...}, the server's time,
-- seconds until the next call can find something, or '' if that is unknown}.
--
-- Uses: permit_writes.

permit_writes()
local free, lease, aside, max_scanned, busy = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), {}
local retries = tonumber(ARGV[5])
for at = 6, #ARGV, 2 do busy[ARGV[at]] = tonumber(ARGV[at + 1]) end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local function move(job_id, delay) redis.call('ZADD', KEYS[1], string.format('%.3f', now + delay), job_id) end
local function receiver_of(url)
  local scheme, authority = string.match(string.lower(url), '^(%a+)://([^/?#]*)')
  local host, port = string.match(authority or '', '^(.*):(%d*)$')
  host = string.gsub(host or authority or '', '%.$', '')
  return host .. ':' .. (tonumber(port) or scheme == 'http' and 80 or 443)
end
local found, passed = {}, {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, max_scanned)) do
  if #found == free then break end
  local delivery = KEY.delivery .. job_id
  local url, attempts = unpack(redis.call('HMGET', delivery, 'webhook_url', 'attempts'))
  if not url then
    redis.call('ZREM', KEYS[1], job_id)
  else
    local receiver = receiver_of(url)
    local under_way, is_retry = busy[receiver] or 0, (tonumber(attempts) or 0) > 0
    if under_way < free - #found and (retries > 0 or not is_retry) then
      if is_retry then retries = retries - 1 end
      busy[receiver] = under_way + 1
      move(job_id, lease)
      redis.call('HINCRBY', delivery, 'attempts', 1)
      table.insert(found, {job_id, receiver, redis.call('HGETALL', delivery)})
    else
      table.insert(passed, job_id)
    end
  end
end
local wait = ''
if #passed == max_scanned then
  for _, job_id in ipairs(passed) do move(job_id, aside) end
  wait = '0'
else
  local after = '(' .. string.format('%.3f', now)
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if due then wait = string.format('%.3f', due - now) end
end
return {found, string.format('%.3f', now), wait}
