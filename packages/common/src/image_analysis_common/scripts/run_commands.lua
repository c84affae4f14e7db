-- Runs commands one after the other as a transaction does, but also while Redis is full: it refuses each command of a
-- transaction then.
--
-- KEYS: none. The commands name their keys.
-- ARGV
--   1... the commands, each preceded by its number of words
-- Writes: what the commands write.
-- Answers: what the last command answers.
--
-- Uses: permit_writes, run.

permit_writes()
return run(1)
