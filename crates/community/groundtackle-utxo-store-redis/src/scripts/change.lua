#!lua
-- Carries out one call's change, or nothing of it. The line above makes the server refuse the whole
-- script, and not its middle, when it is out of memory, read-only or can't write to its disk.
--
-- KEYS[1]: the hash of calls, then what the change touches.
-- ARGV: lane, the call's number there, the time; how many values must be as they were read, for each
-- key's index, field and token ('' where there was none); then commands of three arguments each.
local lane, number, now = ARGV[1], ARGV[2], ARGV[3]
local last = redis.call('HGET', KEYS[1], lane)
if last then
    local done = string.sub(last, 1, 16)
    -- The same call again, since its answer was lost.
    if done == number then return string.sub(last, 17, 17) end
    -- A call that was given up arrives late.
    if done > number then return 'late' end
end
local at = 5
for _ = 1, tonumber(ARGV[4]) do
    local found = redis.call('HGET', KEYS[tonumber(ARGV[at])], ARGV[at + 1])
    if (found and string.sub(found, 1, 8) or '') ~= ARGV[at + 2] then
        redis.call('HSET', KEYS[1], lane, number .. '-' .. now)
        return '-'
    end
    at = at + 3
end
redis.call('HSET', KEYS[1], lane, number .. '+' .. now)
for i = at, #ARGV, 4 do
    redis.call(ARGV[i], KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], ARGV[i + 3])
end
return '+'
