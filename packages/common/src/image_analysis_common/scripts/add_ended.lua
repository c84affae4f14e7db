-- Adds the record of a job that ends at once: a cached result answers it, or it was refused.
--
-- KEYS
--   1 record    the job's record
--   2 answered  the number of jobs that the image's results have answered; '' for a refused job
--   3 jobs_of   the owner's jobs
--   4 result    the image's cached results
-- ARGV
--   1 job_id
--   2 owner        '' without one
--   3 has_webhook  1 or 0
--   4... the record's fields
-- Writes: KEYS 1, 2, 3; the delivery of a job that has a webhook.
-- Answers: nothing.
--
-- Uses: enlist, schedule, count_answers.

redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], TTL.ended_job)
if KEYS[2] ~= '' then count_answers(KEYS[4], KEYS[2], 1) end
if ARGV[2] ~= '' then enlist(KEYS[3], ARGV[1]) end
if ARGV[3] == '1' then schedule(KEYS[1]) end
