-- advance_followers(followers, fields, ttl, most): advances up to `most` of a run's followers, and returns how many.
-- With a `ttl` this ends them; otherwise `ttl` is ''.
--
-- If an end leaves some followers open, the list `followers_end` keeps its fields for the API's sweep, and no later end
-- of the run replaces them. A step before the end changes `most` followers only; the others skip it.
--
-- Uses: advance.

local function advance_followers(followers, fields, ttl, most)
  if redis.call('EXISTS', followers) == 0 then return 0 end
  local run, is_end, advanced = string.match(followers, '[^:]+$'), ttl ~= '', 0
  local end_key = KEY.followers_end .. run
  local begun = redis.call('LRANGE', end_key, 0, -1)
  if #begun > 0 then
    if not is_end then return 0 end
    fields = begun
  end
  for _, follower in ipairs(redis.call(is_end and 'SPOP' or 'SRANDMEMBER', followers, most)) do
    if advance(follower, fields, ttl) then advanced = advanced + 1 end
  end
  if not is_end then return advanced end
  if redis.call('EXISTS', followers) == 0 then
    redis.call('DEL', end_key)
  else
    if #begun == 0 then redis.call('RPUSH', end_key, unpack(fields)) end
    redis.call('EXPIRE', end_key, TTL.unended_job)
    redis.call('EXPIRE', followers, TTL.unended_job)
    redis.call('ZADD', KEY.runs, 0, run)
    redis.call('EXPIRE', KEY.runs, TTL.unended_job)
  end
  return advanced
end
