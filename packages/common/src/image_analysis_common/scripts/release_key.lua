-- Releases an idempotency key whose request was not accepted. If its job or batch exists, the key keeps its claim, even
-- if the client never got the answer.
--
-- KEYS
--   1 claim  the claim of the key
-- ARGV
--   1 id    of the job or batch
--   2 work  prefix of the key of a job or batch
-- Writes: KEYS 1.
-- Answers: nothing.

if redis.call('HGET', KEYS[1], 'id') == ARGV[1] and redis.call('EXISTS', ARGV[2] .. ARGV[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
