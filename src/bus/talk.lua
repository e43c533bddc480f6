#!lua
-- Puts a message into the room's log and tells every dyno, in one step: log order is publish order.
-- Without allow-oom: when memory is full, nothing can be said, and everybody can read on.
--
-- KEYS  owners, stream (also the channel), cid
-- ARGV  folded name, owner, body, the lowest id that the dyno takes for new, length of the log, life
--       of the log and of the cid in s
-- Returns nil if the name is someone else's; the id that this cid got, if it was said before; else 1.
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and owner:sub(1, 40) ~= ARGV[2] then return nil end

local said = redis.call('GET', KEYS[3])
if said then return said end

-- XADD gives ids that rise within a stream. Where the stream was lost and the clock has gone back, or
-- the dyno is ahead of the clock, the dyno's is taken. It is refused (hence pcall) if the stream is ahead
-- of the dyno: then any id will do.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fresh = redis.call('EXISTS', KEYS[2]) == 0
local function add(id)
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], id, 'm', ARGV[3])
end
local floor, id = tonumber(ARGV[4]:match('^%d+'))
if now < floor or fresh and now == floor then id = add(ARGV[4]) end
if type(id) ~= 'string' then id = add('*') end
if type(id) ~= 'string' then return id end

redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('SET', KEYS[3], id, 'EX', ARGV[7])
if fresh then redis.call('PUBLISH', KEYS[2], 'new ' .. id) end
redis.call('PUBLISH', KEYS[2], id .. ' ' .. ARGV[3])
return 1
