#!lua
-- Carries out one call's change, or nothing of it. The line above makes the server refuse the whole
-- script, and not its middle, when it is out of memory, read-only or can't write to its disk.
--
-- KEYS[1]: the hash of calls, then what the change touches.
-- ARGV: lane, the call's number there, the time; values that must be as they were read, in one string: of
-- each its key's index (3 bytes), the field's length and the field, the token's length (0 where there was
-- none) and the token. Then commands by groups: name, how many, and
--   HSET, HDEL: in one string of each its key's index (3 bytes), the field's length and the field; and of
--     HSET the values;
--   ZADD, ZREM: the key's index, members of 36 bytes in one string;
--   BITFIELD: the key's index, offsets of 3 bytes in one string, and the bit's value.
local call, byte, sub = redis.call, string.byte, string.sub
local lane, number, now = ARGV[1], ARGV[2], ARGV[3]
local last = call('HGET', KEYS[1], lane)
if last then
    local done = sub(last, 1, 16)
    -- The same call again, since its answer was lost.
    if done == number then return sub(last, 17, 17) end
    -- A call that was given up arrives late.
    if done > number then return 'late' end
end
local function index(text, at)
    local a, b, c = byte(text, at, at + 2)
    return a * 65536 + b * 256 + c
end
local expects, at = ARGV[4], 1
while at <= #expects do
    local key, field = KEYS[index(expects, at)], at + 4
    at = field + byte(expects, at + 3)
    local token = sub(expects, at + 1, at + byte(expects, at))
    local found = call('HGET', key, sub(expects, field, at - 1))
    if (found and sub(found, 1, 8) or '') ~= token then
        call('HSET', KEYS[1], lane, number .. '-' .. now)
        return '-'
    end
    at = at + 1 + #token
end
call('HSET', KEYS[1], lane, number .. '+' .. now)
at = 5
while at <= #ARGV do
    local name, count = ARGV[at], tonumber(ARGV[at + 1])
    at = at + 2
    if name == 'HSET' or name == 'HDEL' then
        local packed, from = ARGV[at], 1
        at = at + 1
        for _ = 1, count do
            local to = from + 3 + byte(packed, from + 3)
            local key, field = KEYS[index(packed, from)], sub(packed, from + 4, to)
            from = to + 1
            if name == 'HSET' then
                call(name, key, field, ARGV[at])
                at = at + 1
            else
                call(name, key, field)
            end
        end
    else
        local key, packed = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
        at = at + 2
        local words, n = {}, 0
        if name == 'BITFIELD' then
            local bit = ARGV[at]
            at = at + 1
            for i = 1, #packed, 3 do
                words[n + 1], words[n + 2], words[n + 3], words[n + 4] = 'SET', 'u1', index(packed, i), bit
                n = n + 4
            end
        else
            local score = name == 'ZADD'
            for i = 1, #packed, 36 do
                if score then
                    n = n + 1
                    words[n] = '0'
                end
                n = n + 1
                words[n] = sub(packed, i, i + 35)
            end
        end
        call(name, key, unpack(words))
    end
end
return '+'
