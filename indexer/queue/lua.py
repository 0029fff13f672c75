"""The scripts of a log in Redis. `KEYS[1]` is the prefix of all its keys, which lie in one slot.

    stream       entries POSITION-0 with job, kind, payload
    meta         hash: last (position given), jobs (number given), trial, problem
    job:ID       hash: number, created, total, published, failed, underway, letters, started, finished
    jobs, done   jobs by number; those finished by when
    dead         positions of dead letters; dead:POSITION is a hash of what the letter holds

Times come from the client as arguments. Numbers are written with %.0f: Lua would write large ones as 1e+14.
"""

_COMMON = """
local P = KEYS[1]
local call = redis.call
local function whole(number) return string.format('%.0f', number) end
local function last() return tonumber(call('HGET', P .. 'meta', 'last') or '0') end

local function add(position, job, kind, payload)
    call('XADD', P .. 'stream', whole(position) .. '-0', 'job', job, 'kind', kind, 'payload', payload)
end

local function ends(position) call('HSET', P .. 'meta', 'last', whole(position)) end

local function settle(job, now)
    local key = P .. 'job:' .. job
    local counts = call('HMGET', key, 'total', 'published', 'failed', 'finished')
    if not counts[4] and counts[2] + counts[3] >= tonumber(counts[1]) then
        call('HSET', key, 'finished', now)
        call('ZADD', P .. 'done', now, job)
    end
end

local function reopen(job)
    call('HDEL', P .. 'job:' .. job, 'finished')
    call('ZREM', P .. 'done', job)
end

local function exhume(position)
    local key = P .. 'dead:' .. position
    local letter = call('HMGET', key, 'job', 'kind', 'payload')
    if not letter[1] then return nil end
    call('DEL', key)
    call('ZREM', P .. 'dead', position)
    call('HINCRBY', P .. 'job:' .. letter[1], 'letters', -1)
    return letter
end
"""

APPEND = (
    _COMMON
    + """
local expected, job, now = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local position = last()
if position < expected then return redis.error_reply('LOST ' .. whole(position) .. ' ' .. ARGV[1]) end
local key = P .. 'job:' .. job
if call('EXISTS', key) == 0 then
    local number = call('HINCRBY', P .. 'meta', 'jobs', 1)
    call('HSET', key, 'number', number, 'created', now, 'total', 0, 'published', 0, 'failed', 0)
    call('ZADD', P .. 'jobs', number, job)
end
for at = 4, #ARGV, 2 do
    position = position + 1
    add(position, job, ARGV[at], ARGV[at + 1])
end
ends(position)
call('HINCRBY', key, 'total', (#ARGV - 3) / 2)
if #ARGV > 3 then reopen(job) else settle(job, now) end
return whole(position)
"""
)

PRUNE = (
    _COMMON
    + """
local applied, now, most = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local oldest, kept = tonumber(ARGV[4]), tonumber(ARGV[5])
local covered, counts = call('XRANGE', P .. 'stream', '-', whole(applied) .. '-0', 'COUNT', most), {}
for _, entry in ipairs(covered) do
    local job = entry[2][2]
    counts[job] = (counts[job] or 0) + 1
end
for job, count in pairs(counts) do
    local key = P .. 'job:' .. job
    call('HINCRBY', key, 'published', count)
    call('HDEL', key, 'underway')
    call('HSETNX', key, 'started', now)
    settle(job, now)
end
if #covered > 0 then
    local newest = tonumber(string.match(covered[#covered][1], '%d+'))
    call('XTRIM', P .. 'stream', 'MINID', '=', whole(newest + 1) .. '-0')
end
local trial = call('HGET', P .. 'meta', 'trial')
if trial and tonumber(string.match(trial, '%d+')) <= applied then call('HDEL', P .. 'meta', 'trial') end

local numbers = tonumber(call('HGET', P .. 'meta', 'jobs') or '0')
for _, job in ipairs(call('ZRANGE', P .. 'done', 0, 99)) do
    local key = P .. 'job:' .. job
    local facts = call('HMGET', key, 'number', 'finished', 'letters')
    local old = tonumber(facts[2]) < oldest or tonumber(facts[1]) <= numbers - kept
    if old and tonumber(facts[3] or '0') == 0 then
        call('DEL', key)
        call('ZREM', P .. 'done', job)
        call('ZREM', P .. 'jobs', job)
    end
end
if #covered == tonumber(most) then return 1 end
return 0
"""
)

ENCODED = (
    _COMMON
    + """
for at = 2, #ARGV, 2 do
    local key = P .. 'job:' .. ARGV[at]
    if call('EXISTS', key) == 1 then
        call('HSET', key, 'underway', ARGV[at + 1])
        call('HSETNX', key, 'started', ARGV[1])
    end
end
"""
)

BURY = (
    _COMMON
    + """
local position, error, tries, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = call('XRANGE', P .. 'stream', position .. '-0', position .. '-0')[1]
if not found then return 0 end
local job, kind, payload = found[2][2], found[2][4], found[2][6]
call('HSET', P .. 'dead:' .. position, 'position', position, 'job', job, 'kind', kind, 'payload', payload,
     'error', error, 'tries', tries, 'time', now)
call('ZADD', P .. 'dead', position, position)
call('XDEL', P .. 'stream', position .. '-0')
local key = P .. 'job:' .. job
call('HINCRBY', key, 'failed', 1)
call('HINCRBY', key, 'letters', 1)
call('HDEL', key, 'underway')
settle(job, now)
return 1
"""
)

RETRY = (
    _COMMON
    + """
local again, position = 0, last()
for _, position in ipairs(ARGV) do
    local letter = exhume(position)
    if letter then
        position = position + 1
        add(position, letter[1], letter[2], letter[3])
        call('HINCRBY', P .. 'job:' .. letter[1], 'failed', -1)
        reopen(letter[1])
        again = again + 1
    end
end
ends(position)
return again
"""
)

DROP = (
    _COMMON
    + """
local dropped = 0
for _, position in ipairs(ARGV) do
    if exhume(position) then dropped = dropped + 1 end
end
return dropped
"""
)
