#!lua flags=no-writes
-- Reads a room's log from a message on, and the names in the room.
--
-- KEYS  stream, owners
-- ARGV  id of the newest message that the dyno has (0-0: none), most lines, most bytes
-- Returns whether the log still holds that message, or where there is none, all that was ever said;
-- the id to go on from, if there is more to read; the lines (ID BODY, oldest first); the owners, as
-- HGETALL does; and the newest id that the log ever had.
local last, count, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local whole, more, lines, ever = 0, false, {}, '0-0'

local function line(row)
  bytes = bytes - #row[2][2]
  return row[1] .. ' ' .. row[2][2]
end

if redis.call('EXISTS', KEYS[1]) == 0 then
  if last == '0-0' then whole = 1 end
else
  local info, added = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'entries-added' then added = info[i + 1] end
    if info[i] == 'last-generated-id' then ever = info[i + 1] end
  end
  if last == '0-0' then
    -- The newest that fit. Read backwards a page at a time, for the whole log may be megabytes.
    local newest, above = {}, '+'
    repeat
      local page = redis.call('XREVRANGE', KEYS[1], above, '-', 'COUNT', 100)
      for _, row in ipairs(page) do
        newest[#newest + 1] = line(row)
        above = '(' .. row[1]
        if bytes <= 0 or #newest == count then break end
      end
    until #page < 100 or bytes <= 0 or #newest == count
    for i = #newest, 1, -1 do lines[#lines + 1] = newest[i] end
    if added == #lines then whole = 1 end
  else
    -- From the last one on, itself included: its absence would be a hole.
    local rows = redis.call('XRANGE', KEYS[1], last, '+', 'COUNT', count)
    if rows[1] and rows[1][1] == last then whole = 1 end
    for i = 1 + whole, #rows do
      lines[#lines + 1] = line(rows[i])
      if bytes <= 0 or i == count then
        more = rows[i][1]
        break
      end
    end
  end
end
return { whole, more, lines, redis.call('HGETALL', KEYS[2]), ever }
