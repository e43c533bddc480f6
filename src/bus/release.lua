#!lua flags=allow-oom
-- Gives a name back, if it is still the owner's to give.
--
-- KEYS  names, owners, channel
-- ARGV  folded name, owner
local owner = redis.call('HGET', KEYS[2], ARGV[1])
if owner and owner:sub(1, 40) == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('PUBLISH', KEYS[3], 'names')
end
