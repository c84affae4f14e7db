-- locate(run): returns the place from which RQ gives the job to a worker: `queue`, `intermediate` (between pop and
-- start), `started`, or `registry` for any other; nil if RQ has lost the job. Then the name of its queue, while RQ has
-- the job's hash, and the job's executions, alive or not.
--
-- LPOS takes 10 microseconds for a thousand jobs.

local function locate(run)
  local queue = redis.call('HGET', RQ.job .. run, 'origin')
  if not queue then return end
  local list = RQ.queue .. queue
  if redis.call('LPOS', list, run) then return 'queue', queue end
  if redis.call('LPOS', list .. RQ.intermediate, run) then return 'intermediate', queue end
  local executions = {}
  for _, execution in ipairs(redis.call('ZRANGE', RQ.started .. queue, 0, -1)) do
    if string.match(execution, '^[^:]*') == run then table.insert(executions, execution) end
  end
  if #executions > 0 then return 'started', queue, executions end
  for _, registry in ipairs({RQ.scheduled, RQ.deferred, RQ.ready}) do
    if redis.call('ZSCORE', registry .. queue, run) then return 'registry', queue end
  end
  return nil, queue
end
