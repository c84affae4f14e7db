-- run(at): runs the commands in ARGV from `at` on, each preceded by its number of words. Returns what the last one
-- answers.

local function run(at)
  local answer = false
  while at <= #ARGV do
    local count = tonumber(ARGV[at])
    answer = redis.call(unpack(ARGV, at + 1, at + count))
    at = at + count + 1
  end
  return answer
end
