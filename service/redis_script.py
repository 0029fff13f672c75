"""What Redis runs to write to a cache: atomically, so that its books are right whoever writes and dies.

KEYS are a sorted set of the entries' names by when they were last used (milliseconds), and a hash of their
sizes with their `total`. ARGV: the prefix of the entries' keys, the budget in bytes, for how many
milliseconds an entry is kept that nobody uses, what the books take of memory for each, how many entries
follow; their names and values, an empty one being removed; names of entries that were used. Gives the total
and how many made room for others.

A server that is full refuses what takes memory, but not once a script has written anything: so a write that
changes nothing comes first. What has expired is taken off the books before there is more.
"""

WRITE = """
local used, sizes = KEYS[1], KEYS[2]
local prefix, budget, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local beside, last = tonumber(ARGV[4]), 5 + 2 * ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function total()
  return tonumber(redis.call('HGET', sizes, 'total') or 0)
end

local function drop(name)
  redis.call('DEL', prefix .. name)
  redis.call('ZREM', used, name)
  local size = redis.call('HGET', sizes, name)
  if size then
    redis.call('HDEL', sizes, name)
    redis.call('HINCRBY', sizes, 'total', -size)
  end
end

redis.call('HINCRBY', sizes, 'total', 0)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', now - kept)) do
  drop(name)
end
for at = 6, last, 2 do
  local name, value = ARGV[at], ARGV[at + 1]
  drop(name)
  if value ~= '' then
    redis.call('SET', prefix .. name, value, 'PX', kept)
    redis.call('ZADD', used, now, name)
    local size = redis.call('MEMORY', 'USAGE', prefix .. name) + beside
    redis.call('HSET', sizes, name, size)
    redis.call('HINCRBY', sizes, 'total', size)
  end
end
for at = last + 1, #ARGV do
  if redis.call('HEXISTS', sizes, ARGV[at]) == 1 then
    redis.call('PEXPIRE', prefix .. ARGV[at], kept)
    redis.call('ZADD', used, now, ARGV[at])
  end
end

local evicted = 0
while total() > budget do
  local oldest = redis.call('ZRANGE', used, 0, 0)[1]
  if not oldest then
    redis.call('DEL', sizes)
    break
  end
  drop(oldest)
  evicted = evicted + 1
end
redis.call('PEXPIRE', used, kept)
redis.call('PEXPIRE', sizes, kept)
return {total(), evicted}
"""
