-- Counts a client's requests in an exact sliding window, on the server's clock; see `count_requests`.
--
-- KEYS
--   1 requests  the client's list
-- ARGV
--   1 limit   requests in a window
--   2 window  seconds
--   3 cost    requests to count now; 0 only reads
--   4 instead the time of an earlier count of this request, which is removed; 0 if there is none
-- Writes: KEYS 1.
-- Answers: {1 if admitted, else 0, requests left, seconds until there is room, the time of the count}.
--
-- Uses: count_requests.

local limit, window_s, cost, instead = unpack(ARGV)
return count_requests(KEYS[1], tonumber(limit), window_s, tonumber(cost), instead)
