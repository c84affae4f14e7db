-- count_answers(result, answered, number): counts jobs that a cached result has answered. The count expires together
-- with the result; without a result nothing is counted.

local function count_answers(result, answered, number)
  local left_ms = redis.call('PTTL', result)
  if left_ms < 0 then
    redis.call('DEL', answered)
  elseif number > 0 then
    redis.call('INCRBY', answered, number)
    redis.call('PEXPIRE', answered, left_ms)
  end
end
