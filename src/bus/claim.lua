#!lua flags=allow-oom
-- Takes a name for its owner, for one lease. Allowed when memory is full: a full Redis must not lock
-- anybody out.
--
-- KEYS  names (folded name by lease end), owners (folded name -> owner and shown name), channel
-- ARGV  folded name, owner (40 hex digits), shown name, lease in ms
-- Returns the name as it was first claimed, or nil: it is someone else's.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
  changed = true
end

local owner = redis.call('HGET', KEYS[2], ARGV[1])
if owner and owner:sub(1, 40) ~= ARGV[2] then
  if changed then redis.call('PUBLISH', KEYS[3], 'names') end
  return nil
end
if not owner then
  owner = ARGV[2] .. ARGV[3]
  redis.call('HSET', KEYS[2], ARGV[1], owner)
  changed = true
end
redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
if changed then redis.call('PUBLISH', KEYS[3], 'names') end
return owner:sub(41)
