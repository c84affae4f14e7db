-- bind_claim(claim, job_id): lets the claim of an idempotency key expire together with the record of its job, which has
-- just ended. `claim` is nil for a job without one. The key may have been claimed anew, if its job came very late.

local function bind_claim(claim, job_id)
  if claim and redis.call('HGET', claim, 'id') == job_id then redis.call('EXPIRE', claim, TTL.ended_job) end
end
