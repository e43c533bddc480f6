#!lua flags=allow-oom
-- Leases of names in one room. Allowed when memory is full, so that people can still join and read.
--
-- KEYS  names (ZSET: folded name by the end of its lease in ms), owners (HASH: folded name to owner, 40
--       hex digits, and shown name), stream
-- ARGV  channel, verb, lease in ms, life of the stream in s, then for each name: folded name, owner,
--       shown name
--
-- claim    Takes one name, if it is free or the owner's. Returns it as it was first claimed, or nil.
-- renew    Extends the leases that are still their owner's, and the life of the stream. Never makes a
--          lease. Returns the positions (from 1) of the names that were lost.
-- release  Ends one lease, if it is the owner's.
local names, owners, stream = KEYS[1], KEYS[2], KEYS[3]
local channel, verb, lease, stream_life = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local changed = false
redis.call('HLEN', owners) -- a key of another type fails before anything is written

local function holder(folded)
  local value = redis.call('HGET', owners, folded)
  if value then return value:sub(1, 40), value:sub(41) end
end

local function drop_lease(folded)
  redis.call('ZREM', names, folded)
  redis.call('HDEL', owners, folded)
  changed = true
end

local function set_lease(folded)
  redis.call('ZADD', names, now + lease, folded)
end

-- Leases that have ended.
for _, folded in ipairs(redis.call('ZRANGEBYSCORE', names, '-inf', now)) do
  drop_lease(folded)
end
-- Leases that end later than any lease given now: the clock has stepped back.
for _, folded in ipairs(redis.call('ZRANGEBYSCORE', names, '(' .. now + lease, '+inf')) do
  set_lease(folded)
end
-- Owners without a lease would stay for ever. A Redis that is short of memory may have evicted the
-- leases: give them back, because the owners may be connected. They end like any other.
if redis.call('HLEN', owners) ~= redis.call('ZCARD', names) then
  for _, folded in ipairs(redis.call('HKEYS', owners)) do
    redis.call('ZADD', names, 'NX', now + lease, folded)
  end
end

local reply = false
if verb == 'claim' then
  local folded, owner, shown = ARGV[5], ARGV[6], ARGV[7]
  local held_by, first_shown = holder(folded)
  if not held_by then
    redis.call('HSET', owners, folded, owner .. shown)
    changed = true
  end
  if not held_by or held_by == owner then
    set_lease(folded)
    reply = first_shown or shown
  end
elseif verb == 'renew' then
  reply = {}
  for i = 5, #ARGV, 3 do
    if holder(ARGV[i]) == ARGV[i + 1] then
      set_lease(ARGV[i])
    else
      reply[#reply + 1] = (i - 2) / 3
    end
  end
  redis.call('EXPIRE', stream, stream_life)
elseif verb == 'release' then
  if holder(ARGV[5]) == ARGV[6] then drop_lease(ARGV[5]) end
end

redis.call('PEXPIRE', names, lease)
redis.call('PEXPIRE', owners, lease)
if changed then redis.call('PUBLISH', channel, 'names') end
return reply
