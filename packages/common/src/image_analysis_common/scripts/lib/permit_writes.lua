-- permit_writes(): lets a script write while Redis is full. Redis refuses the first write of a script if it may need
-- memory, and no write after the first. Deleting a key that does not exist needs none.
--
-- Scripts use it that continue, end or cancel jobs, which frees the images, or that deliver webhooks, which frees the
-- copies of records; those that accept jobs do not.

local function permit_writes()
  redis.call('DEL', KEY.nothing)
end
