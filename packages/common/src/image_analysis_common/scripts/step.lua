-- Takes one step of each of some runs of a model. What other processes can change is read here, at the time of the
-- write: an earlier read could be out of date.
--
-- A step is taken only while the job belongs to this worker. A worker that was silent for too long has lost its claim,
-- and its late steps write nothing. One exception: if RQ no longer knows the job, no other worker can run it, so an end
-- is written without the claim.
--
-- Followers change together with the run. A cancelled job ends as CANCELLED, and its run continues while it has
-- followers; without any, the next step ends the run as CANCELLED. An ended record never changes again. A result that
-- answers no job is not cached, nor its image's embedding; jobs with a result are counted, so that deleting one of them
-- leaves the results of others. Of an image with too many results, one is dropped: an answer to another question.
--
-- `ended_by` names the execution that wrote an end: if the answer is lost on its way, the same call returns it again.
--
-- KEYS
--   1 bytes   the total bytes of the model's images
--   2 worker  RQ's hash of the worker; '' if the caller updates RQ itself
-- ARGV
--   1 name       of the worker
--   2 queue      the name of its queue
--   3 now        in RQ's form
--   4 now_s      seconds since 1970
--   5 others     how many executions the worker has without these runs; '' if its state stays as it is
--   6 working_s  how long it worked on runs that end; '' if on none
--   7 cache_ttl  seconds; 0 if results are not cached
--   8 most       followers to change in this call, of all its runs together
--   9 most_results  of one image in the cache
--   10... the runs, each with these words:
--        job_id
--        image_hash   '' if the caller does not know the record
--        leader       the key of the ID of the job that runs the image; '' if the caller does not know the record
--        kind         start, complete, fail, retry, abandon, give_back or put_back; '' if the caller updates RQ itself
--        execution    RQ's ID of the execution that starts or ends; '' if the job was never started
--        started_s    when that execution was started; '' without one
--        value        the result of complete or fail, as RQ keeps it; the attempts that retry or abandon leave
--        cache_field  the field of this result
--        cached       the result as JSON; '' if it is not cached
--        embedding_field  the field of the image's embedding, which expires together with the result; '' without one
--        embedding    its bytes; '' if the cache has them
--        words        the number of words of the fields
--        the fields, of which the first is the status
-- Writes: all KEYS; of each run the record, followers, leader, image, result, embedding and answered; what
-- `advance_followers` writes; what the library `books` writes.
-- Answers: the new status of each run; nil if nothing was written.
--
-- Uses: advance, advance_followers, books, count_answers, permit_writes.

permit_writes()
local bytes, worker = unpack(KEYS)
local name, queue, now, now_s, others, working_s, cache_ttl, most, most_results = unpack(ARGV, 1, 9)
local books = {
  key = worker, name = name, queue = queue, now = now, now_s = now_s, others = others, working_s = working_s,
  -- What expires, expires on the server's clock: that of a worker may be wrong.
  seconds = tonumber(redis.call('TIME')[1]),
  started = {}, expiries = {}, ended = {}, finished = {}, failed = {}, doomed = {},
}
local freed, room = 0, tonumber(most)

local function drop_other_answer(result, kept)
  if redis.call('HLEN', result) <= tonumber(most_results) then return end
  for _, field in ipairs(redis.call('HKEYS', result)) do
    -- The variant of a question or an embedding, as `JobRecord.cache_fields` writes it.
    if field ~= kept and string.find(field, '%?%x+%+?%d*$') then return redis.call('HDEL', result, field) end
  end
end

local function cache(run, answered)
  local result, answers = KEY.result .. run.image_hash, KEY.answered .. run.image_hash
  if redis.call('EXISTS', result) == 0 then redis.call('DEL', answers) end
  redis.call('HSET', result, run.cache_field, run.cached)
  redis.call('EXPIRE', result, cache_ttl)
  drop_other_answer(result, run.cache_field)
  if run.embedding_field ~= '' then
    local embeddings = KEY.embedding .. run.image_hash
    if run.embedding ~= '' then redis.call('HSET', embeddings, run.embedding_field, run.embedding) end
    redis.call('EXPIRE', embeddings, cache_ttl)
  end
  redis.call('INCRBY', answers, answered)
  redis.call('EXPIRE', answers, cache_ttl)
end

local function discard_image(run)
  if run.leader ~= '' and redis.call('GET', run.leader) == run.id then table.insert(books.doomed, run.leader) end
  local image = KEY.image .. run.id
  freed = freed + redis.call('STRLEN', image)
  table.insert(books.doomed, image)
end

local function cancel_in_books(run, ttl)
  local job, canceled, time = RQ.job .. run.id, RQ.canceled .. queue, redis.call('TIME')[1]
  redis.call('HSET', job, 'status', 'canceled')
  redis.call('EXPIRE', job, ttl)
  redis.call('ZREMRANGEBYSCORE', canceled, 0, time)
  redis.call('ZADD', canceled, time + ttl, run.id)
  redis.call('EXPIRE', canceled, ttl)
end

local function take(run, fields)
  local record, followers, in_books = KEY.job .. run.id, KEY.followers .. run.id, run.kind ~= ''
  local is_end = fields[2] ~= 'PENDING' and fields[2] ~= 'PROCESSING'
  local execution = run.kind ~= 'start' and run.kind ~= 'abandon' and run.execution or ''
  if execution ~= '' then
    table.insert(books.ended, run.member)
    table.insert(books.doomed, RQ.execution .. run.member)
    redis.call('ZREM', RQ.executions .. run.id, execution)
  end

  local is_claimed = not in_books or claim_run(books, run)
  local is_in_rq = not in_books or redis.call('EXISTS', RQ.job .. run.id) == 1
  local status, mark, ended_by = unpack(redis.call('HMGET', record, 'status', 'cancelled', 'ended_by'))
  if not is_claimed then
    if execution ~= '' and ended_by == execution then return status end
    if is_in_rq then return false end
  end
  if not is_in_rq and not is_end then return false end

  local is_cancelled = mark or status == 'CANCELLED'
  local is_unwanted = (is_cancelled or not status) and redis.call('EXISTS', followers) == 0
  if is_unwanted and not is_end and run.leader ~= '' then fields, is_end = {'status', 'CANCELLED'}, true end
  local ttl = is_end and TTL.ended_job or ''
  local answered, own = 0, is_end and is_cancelled and {'status', 'CANCELLED'} or {unpack(fields)}
  if is_end and execution ~= '' then
    table.insert(own, 'ended_by')
    table.insert(own, execution)
  end
  if advance(record, own, ttl) and not (is_end and is_cancelled) then answered = 1 end
  local followed = advance_followers(followers, fields, ttl, room)
  room, answered = room - followed, answered + followed
  if run.cached ~= '' and answered > 0 then
    cache(run, answered)
  elseif fields[2] == 'COMPLETED' then
    count_answers(KEY.result .. run.image_hash, KEY.answered .. run.image_hash, answered)
  end
  if is_end then discard_image(run) end
  if in_books and is_in_rq then
    if is_end and (is_cancelled or is_unwanted) then
      cancel_in_books(run, ttl)
    else
      write_books(books, run)
    end
  end
  if not is_end or answered > 0 then return fields[2] end
  return is_cancelled and 'CANCELLED' or false
end

local at, statuses = 10, {}
while at <= #ARGV do
  local id, image_hash, leader, kind, execution, started_s, value = unpack(ARGV, at, at + 6)
  local field, cached, embedding_field, embedding, words = unpack(ARGV, at + 7, at + 11)
  local run = {
    id = id, image_hash = image_hash, leader = leader, kind = kind, execution = execution, started_s = started_s,
    value = value, member = id .. ':' .. execution, cache_field = field, cached = cached,
    embedding_field = embedding_field, embedding = embedding,
  }
  table.insert(statuses, take(run, {unpack(ARGV, at + 12, at + 11 + words)}))
  at = at + 12 + words
end
if worker ~= '' then close_books(books) end
if #books.doomed > 0 then redis.call('DEL', unpack(books.doomed)) end
local left = freed > 0 and tonumber(redis.call('GET', bytes) or 0) or 0
if left > 0 then redis.call('SET', bytes, math.max(left - freed, 0), 'KEEPTTL') end
return statuses
