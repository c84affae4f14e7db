-- Lets a worker join those of its model, if what it has read of them is still so: live workers of one name serve the
-- same labels, and two may start at once.
--
-- KEYS
--   1 announcement  of the model, by its latest worker
--   2 workers       the model's workers by their last heartbeat
-- ARGV
--   1 known  the announcement that the worker has read; '' if there was none
--   2 live   how many workers were live
--   3... the commands that announce the worker, each preceded by its number of words
-- Writes: what the commands write.
-- Answers: 1 if it has joined, else nil.
--
-- Uses: permit_writes, run.

local now = redis.call('TIME')[1]
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return false end
if redis.call('ZCOUNT', KEYS[2], now - TTL.worker, '+inf') ~= tonumber(ARGV[2]) then return false end
permit_writes()
run(3)
return 1
