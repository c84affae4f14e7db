-- Frees an idempotency key whose request was not taken in. Work that was taken in keeps its claim, even if the answer
-- never came.
--
-- KEYS
--   1 claim  what the key has led to
-- ARGV
--   1 id    of the work
--   2 work  prefix of the key under which work is found by its ID
-- Writes: KEYS 1.
-- Answers: nothing.

if redis.call('HGET', KEYS[1], 'id') == ARGV[1] and redis.call('EXISTS', ARGV[2] .. ARGV[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
