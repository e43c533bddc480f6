#!lua flags=allow-oom
-- Extends the leases of a dyno's people in one room, and keeps the room's log alive with them. Never
-- makes a name: who has lost it claims it again, and may find that it has gone to someone else.
--
-- KEYS  names, owners, channel (also the stream's key)
-- ARGV  lease in ms, life of the log in s, then folded name and owner of each
-- Returns whether the stream exists, how many names there are, then the positions (from 1) of those
-- whose name is gone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  changed = true
end

-- A name without a lease would stay for ever: a Redis short of memory may have evicted the leases. It
-- gets one, for it may be of someone alive, and then lapses like any other.
if redis.call('HLEN', KEYS[2]) ~= redis.call('ZCARD', KEYS[1]) then
  for _, name in ipairs(redis.call('HKEYS', KEYS[2])) do
    redis.call('ZADD', KEYS[1], 'NX', now + ARGV[1], name)
  end
end

local reply = { redis.call('EXPIRE', KEYS[3], ARGV[2]), redis.call('ZCARD', KEYS[1]) }
for i = 3, #ARGV, 2 do
  local owner = redis.call('HGET', KEYS[2], ARGV[i])
  if owner and owner:sub(1, 40) == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
  else
    reply[#reply + 1] = (i - 1) / 2
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
if changed then redis.call('PUBLISH', KEYS[3], 'names') end
return reply
