-- claim_run(books, run): returns whether RQ's job belongs to this worker. A popped job does while it is in the
-- intermediate list, a started one while its execution is registered; other workers remove both when they consider
-- this worker dead.
-- write_books(books, run): writes what RQ's classes write at this step of a run.
-- close_books(books): writes what the runs of a call share. Executions end even if their run was not claimed.
--
-- `run` holds `id`, `kind`, `execution`, `started_s` and `value`, as in the arguments of `step`. `books` holds the
-- worker's `key` and `name`, the `queue`, the time in RQ's two forms, `now` and `now_s`, and lists of what
-- `close_books` writes. A test compares every field with what RQ writes itself.

local function claim_run(books, run)
  local started = RQ.started .. books.queue
  if run.kind == 'abandon' then return redis.call('ZREM', started, run.member) == 1 end
  if run.kind ~= 'start' and run.execution ~= '' then return redis.call('ZSCORE', started, run.member) end
  local popped = RQ.queue .. books.queue .. RQ.intermediate
  if redis.call('LREM', popped, 1, run.id) == 0 then return false end
  table.insert(books.doomed, popped .. RQ.first_seen .. run.id)
  return true
end

local function write_books(books, run)
  local job, now, kind = RQ.job .. run.id, books.now, run.kind
  if kind == 'start' then
    local execution, executions = RQ.execution .. run.member, RQ.executions .. run.id
    local expires, name = books.seconds + TTL.worker, books.name
    redis.call('HSET', execution, 'id', run.execution, 'job_id', run.id, 'worker_name', name,
      'created_at', run.started_s, 'last_heartbeat', run.started_s)
    redis.call('EXPIRE', execution, TTL.worker)
    redis.call('ZADD', executions, expires + 60, run.execution)
    redis.call('EXPIRE', executions, TTL.worker + 60)
    redis.call('HSET', job, 'status', 'started', 'started_at', now, 'last_heartbeat', now, 'worker_name', name)
    redis.call('EXPIRE', job, TTL.unended_job)
    table.insert(books.started, run.member)
    table.insert(books.expiries, expires)
    table.insert(books.expiries, run.member)
  elseif kind == 'complete' or kind == 'fail' then
    local is_success, results = kind == 'complete', RQ.results .. run.id
    local ttl = is_success and TTL.finished_job or TTL.ended_job
    local registry = is_success and books.finished or books.failed
    local of_execution = {}
    if run.execution ~= '' then
      of_execution = {'execution_id', run.execution, 'execution_started_at', run.started_s,
        'execution_ended_at', books.now_s}
    end
    redis.call('HSET', job, 'status', is_success and 'finished' or 'failed', 'ended_at', now)
    redis.call('EXPIRE', job, ttl)
    redis.call('XADD', results, 'MAXLEN', '~', 10, '*', 'type', is_success and 1 or 2, 'worker_name', books.name,
      is_success and 'return_value' or 'exc_string', run.value, unpack(of_execution))
    redis.call('EXPIRE', results, ttl)
    table.insert(registry, books.seconds + ttl)
    table.insert(registry, run.id)
  else
    if kind == 'retry' or kind == 'abandon' then
      redis.call('HSET', job, 'status', 'queued', 'enqueued_at', now, 'retries_left', run.value)
      redis.call('EXPIRE', job, TTL.unended_job)
    elseif kind == 'give_back' then
      redis.call('HSET', job, 'status', 'queued')
    end
    redis.call('LPUSH', RQ.queue .. books.queue, run.id)
  end
end

local function close_books(books)
  local started, index = RQ.started .. books.queue, books.key .. RQ.executions_of_worker
  if #books.started > 0 then
    redis.call('ZADD', started, unpack(books.expiries))
    redis.call('SADD', index, unpack(books.started))
    redis.call('EXPIRE', index, TTL.worker + 60)
  end
  if #books.ended > 0 then
    redis.call('ZREM', started, unpack(books.ended))
    redis.call('SREM', index, unpack(books.ended))
  end
  if #books.finished > 0 then
    redis.call('ZADD', RQ.finished .. books.queue, unpack(books.finished))
    redis.call('HINCRBY', books.key, 'successful_job_count', #books.finished / 2)
  end
  if #books.failed > 0 then
    redis.call('ZADD', RQ.failed .. books.queue, unpack(books.failed))
    redis.call('HINCRBY', books.key, 'failed_job_count', #books.failed / 2)
  end
  if books.others == '' then return end
  redis.call('HSET', books.key, 'state', books.others + #books.started > 0 and 'busy' or 'idle')
  if books.working_s ~= '' then redis.call('HINCRBYFLOAT', books.key, 'total_working_time', books.working_s) end
  -- After an outage the worker's hash may have expired; these writes would create one without a TTL.
  redis.call('EXPIRE', books.key, TTL.worker)
end
