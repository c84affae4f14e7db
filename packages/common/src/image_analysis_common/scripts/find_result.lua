-- Reads an image's cached results that may answer a job, and the announcement of the model that would analyze it.
--
-- KEYS
--   1 announcement  of the model, by its latest worker
--   2 result        the image's cached results
--   3 workers       the model's workers by their last heartbeat
-- ARGV
--   1 variant  of the job's results, as `JobRecord.variant` has it; '' without a question and an embedding
-- Writes: nothing.
-- Answers: {the announcement or nil, the results of this variant as field, value, ..., the number of live workers}.

local live = redis.call('ZCOUNT', KEYS[3], redis.call('TIME')[1] - TTL.worker, '+inf')
-- The answers to other questions can be many, and large.
local found = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if (string.match(field, '(%?%x+)%+?%d*$') or '') == ARGV[1] then
    table.insert(found, field)
    table.insert(found, redis.call('HGET', KEYS[2], field))
  end
end
return {redis.call('GET', KEYS[1]), found, live}
