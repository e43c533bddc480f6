#!lua
-- Step 2 of a message: stores it in the room's stream and publishes it, in one step, so that stream order is
-- publish order.
-- Without allow-oom: when memory is full nothing can be said, and everybody can read on.
--
-- KEYS  owners (HASH: folded name to owner, 40 hex digits, and shown name), stream, cid
-- ARGV  channel, folded name, owner, body, about how many messages the stream keeps, life of the stream in
--       s, life of the cid in s
-- Returns {'taken'} if the name is somebody else's, {'duplicate', id} if this cid was stored before,
-- {'stored', id} otherwise.
local owners, stream, cid = KEYS[1], KEYS[2], KEYS[3]
local channel, folded, owner, body, keep, stream_life, cid_life = unpack(ARGV)

local holder = redis.call('HGET', owners, folded)
if holder and holder:sub(1, 40) ~= owner then return { 'taken' } end

local stored = redis.call('GET', cid)
if stored then return { 'duplicate', stored } end

local id = redis.call('XADD', stream, 'MAXLEN', '~', keep, '*', 'm', body)
redis.call('EXPIRE', stream, stream_life)
redis.call('SET', cid, id, 'EX', cid_life)
redis.call('PUBLISH', channel, id .. ' ' .. body)
return { 'stored', id }
