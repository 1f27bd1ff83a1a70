#!lua
-- One step on one cell. The line above makes the server refuse the whole script, and not its middle, when it
-- is out of memory, read-only or can't write to its disk.
--
-- KEYS[1]: the cell, a hash. KEYS[2]: its bucket's list, a sorted set, for cells that are ever listed.
-- Neither is emptied and filled again: while its slot moves, a server knows only keys that are there.
-- Field s: the stamp, 8 bytes; then of a page attempt (8), phase, flags, height (4), unmined since (4);
-- of what is due the height (4).
local cell, list, step = KEYS[1], KEYS[2], ARGV[1]

local function number(bytes, at) return struct.unpack('>I4', bytes, at) end

local function has(s, flag) return bit.band(string.byte(s, 18), flag) ~= 0 end

-- What the list says of a cell.
local function listed(s)
    local id = string.sub(cell, string.find(cell, '}', 1, true) + 1)
    if string.sub(id, 1, 1) == 'i' then return { 'f' .. id } end
    if #s == 12 then
        local kind = string.sub(id, 1, 1) == 'u' and 'b' or 'd'
        return { kind .. string.sub(s, 9, 12) .. id }
    end
    if #s ~= 26 then return {} end
    if string.byte(s, 17) ~= 1 then return { 'f' .. id } end
    local found = {}
    if has(s, 32) then
        local txid = string.sub(id, 2, 33)
        if has(s, 8) then found[1] = 'c' .. txid end
        if has(s, 16) then found[#found + 1] = 'u' .. txid .. string.sub(s, 23, 26) end
    end
    return found
end

local function relist(old, new)
    local before, after = old and listed(old) or {}, new and listed(new) or {}
    if table.concat(before) == table.concat(after) then return end
    for _, member in ipairs(before) do redis.call('ZREM', list, member) end
    for _, member in ipairs(after) do redis.call('ZADD', list, 0, member) end
end

-- A list is made with the store: without it the slot has lost what it held.
if list and step ~= 'probe' and redis.call('EXISTS', list) == 0 then return -1 end

if step == 'write' then
    -- The stamp it must have or '', then what s becomes or '', then the other fields and their values.
    -- One that is there already is written again: replicas are asked for the last write of a connection.
    local old, new = redis.call('HGET', cell, 's'), ARGV[3]
    local stamp = old and string.sub(old, 1, 8) or ''
    if stamp ~= ARGV[2] and (not old or stamp ~= string.sub(new, 1, 8)) then return 0 end
    if new == '' then
        if list then relist(old, nil) end
        redis.call('DEL', cell)
        return 1
    end
    if list then relist(old, new) end
    redis.call('HSET', cell, 's', new)
    local kept = { s = true }
    for at = 4, #ARGV, 2 do
        kept[ARGV[at]] = true
        redis.call('HSET', cell, ARGV[at], ARGV[at + 1])
    end
    if old then
        for _, field in ipairs(redis.call('HKEYS', cell)) do
            if not kept[field] then redis.call('HDEL', cell, field) end
        end
    end
    return 1
end

if step == 'mark' then
    -- Output, mark, height, maturity, '1' where locks don't bind, stamp, what the output must be or ''.
    local found = redis.call('HMGET', cell, 's', 'l', 'o' .. ARGV[2], 'm' .. ARGV[2])
    local s, output, mark = found[1], found[3], found[4]
    if not s or #s ~= 26 or found[2] or not output then return 0 end
    if mark then
        if mark ~= ARGV[3] then return 0 end
        redis.call('HSET', cell, 'm' .. ARGV[2], mark)
        return 1
    end
    local height = tonumber(ARGV[4])
    if string.byte(s, 17) ~= 1 or has(s, 4) or has(s, 2) and ARGV[6] ~= '1' then return 0 end
    if has(s, 1) and not (has(s, 8) and number(s, 19) + tonumber(ARGV[5]) <= height) then return 0 end
    local flags = string.byte(output, 1)
    if bit.band(flags, 1) ~= 0 then return 0 end
    if bit.band(flags, 2) ~= 0 and number(output, 2) > height then return 0 end
    if ARGV[8] ~= '' and ARGV[8] ~= string.sub(output, 6) then return 0 end
    redis.call('HSET', cell, 'm' .. ARGV[2], ARGV[3], 's', ARGV[7] .. string.sub(s, 9))
    return 1
end

if step == 'unmark' then
    -- Output, mark, stamp.
    local found = redis.call('HMGET', cell, 's', 'l', 'm' .. ARGV[2])
    local s = found[1]
    if not s or #s ~= 26 or found[2] or found[3] ~= ARGV[3] then return 0 end
    redis.call('HSET', cell, 's', ARGV[4] .. string.sub(s, 9))
    redis.call('HDEL', cell, 'm' .. ARGV[2])
    return 1
end

if step == 'step' then
    -- Attempt, phase, stamp.
    local s = redis.call('HGET', cell, 's')
    if not s or #s ~= 26 or redis.call('HEXISTS', cell, 'l') == 1 then return 0 end
    if string.sub(s, 9, 16) ~= ARGV[2] then return 0 end
    if string.sub(s, 17, 17) == ARGV[3] then
        redis.call('HSET', cell, 's', s)
        return 1
    end
    if string.byte(s, 17) ~= 0 then return 0 end
    local new = ARGV[4] .. string.sub(s, 9, 16) .. ARGV[3] .. string.sub(s, 18)
    relist(s, new)
    redis.call('HSET', cell, 's', new)
    return 1
end

if step == 'create' then
    -- The store's settings, unless they are there.
    if redis.call('EXISTS', cell) == 1 then return 0 end
    for at = 2, #ARGV, 2 do redis.call('HSET', cell, ARGV[at], ARGV[at + 1]) end
    return 1
end

if step == 'probe' then
    -- Every command that the other steps use: none may find out half-way that it has no right to.
    redis.call('HSET', cell, 'f', '')
    redis.call('HGET', cell, 'f')
    redis.call('HMGET', cell, 'f')
    redis.call('HKEYS', cell)
    redis.call('HEXISTS', cell, 'f')
    redis.call('HDEL', cell, '-')
    redis.call('ZADD', list, 0, '!')
    redis.call('ZREM', list, '-')
    redis.call('DEL', cell, list)
    return 1
end
return 0
