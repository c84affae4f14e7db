-- Reads an image's cached results and the announcement of the model that would analyze it.
--
-- KEYS
--   1 announcement  of the model, by its latest worker
--   2 result        the image's cached results
--   3 workers       the model's workers by their last heartbeat
-- ARGV: none
-- Writes: nothing.
-- Answers: {the announcement or nil, the results as field, value, ..., the number of live workers}.

local live = redis.call('ZCOUNT', KEYS[3], redis.call('TIME')[1] - TTL.worker, '+inf')
return {redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[2]), live}
