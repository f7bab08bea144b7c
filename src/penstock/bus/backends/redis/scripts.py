"""Lua scripts that Redis runs as one step. They need Redis 6.2 or newer, one server, no cluster."""

from typing import Final

#: Append to a queue's stream that has room. Keys: stream. Arguments: capacity, record. Nothing: it is full.
SEND_QUEUE: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return false end
return redis.call('XADD', KEYS[1], '*', 'r', ARGV[2])
"""

#: Append to a pub/sub stream that has room; without a group that reads it nothing is done. Now and then, and when it
#: is full, groups of dead instances and what every group is through with are removed. An entry counts as needed while a
#: group has not been given it.
#: Keys: stream. Arguments: capacity, record, what the key of a living instance begins with.
SEND_PUBSUB: Final = """
local stream = KEYS[1]
local capacity = tonumber(ARGV[1])
if redis.call('EXISTS', stream) == 0 then return '' end
local function fields(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
local function parts(id)
  local ms, n = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(n)
end
local function tidy()
  local ms, n
  for _, row in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = fields(row)
    local owner = string.match(group.name, '^own:(.*):%d+$')
    if owner and redis.call('EXISTS', ARGV[3] .. owner) == 0 then
      redis.call('XGROUP', 'DESTROY', stream, group.name)
    else
      local from_ms, from_n = parts(group['last-delivered-id'])
      from_n = from_n + 1
      if not ms or from_ms < ms or (from_ms == ms and from_n < n) then ms, n = from_ms, from_n end
    end
  end
  if not ms then
    redis.call('DEL', stream)
    return false
  end
  redis.call('XTRIM', stream, 'MINID', string.format('%.0f-%.0f', ms, n))
  return true
end
local length = redis.call('XLEN', stream)
if length >= capacity or length % 64 == 63 then
  if not tidy() then return '' end
  if redis.call('XLEN', stream) >= capacity then return false end
end
return redis.call('XADD', stream, '*', 'r', ARGV[2])
"""

#: Claim entries of no living instance: released ones and, if asked for, those of dead instances, whose consumers go.
#: Keys: stream. Arguments: group, consumer, count, what the key of a living instance begins with, 1 for the dead's too.
CLAIM_UNOWNED: Final = """
local stream, group, me = KEYS[1], ARGV[1], ARGV[2]
local known = {['~'] = false}
local function alive(owner)
  if known[owner] == nil then
    local address = string.match(owner, '^(.*)/%d+$') or owner
    known[owner] = ARGV[5] ~= '1' or redis.call('EXISTS', ARGV[4] .. address) == 1
  end
  return known[owner]
end
local taken, from = {}, '-'
while #taken < tonumber(ARGV[3]) do
  local rows = redis.call('XPENDING', stream, group, from, '+', 200)
  for _, row in ipairs(rows) do
    from = '(' .. row[1]
    if #taken < tonumber(ARGV[3]) and row[2] ~= me and not alive(row[2]) then
      local got = redis.call('XCLAIM', stream, group, me, 0, row[1])
      if got[1] then
        taken[#taken + 1] = {row[1], got[1][2][2], row[4] + 1}
      else
        redis.call('XACK', stream, group, row[1])
      end
    end
  end
  if #rows < 200 then break end
end
if ARGV[5] == '1' then
  for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, pending
    for i = 1, #row, 2 do
      if row[i] == 'name' then name = row[i + 1] elseif row[i] == 'pending' then pending = row[i + 1] end
    end
    if pending == 0 and name ~= '~' and not alive(name) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    end
  end
end
return taken
"""

#: Leave a group: all entries of the consumer are released. Keys: stream. Arguments: group, consumer.
LEAVE_GROUP: Final = """
while true do
  local rows = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 200, ARGV[2])
  for _, row in ipairs(rows) do
    redis.call('XCLAIM', KEYS[1], ARGV[1], '~', 0, row[1], 'JUSTID')
  end
  if #rows < 200 then break end
end
return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
"""

#: Say that an instance lives, and see that it has a mailbox. Keys: its key, its mailbox. Arguments: lease and the
#: mailbox's own time, in milliseconds. 1: the mailbox was made.
HEARTBEAT: Final = """
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local made = redis.call('EXISTS', KEYS[2]) == 0
if made then redis.call('XGROUP', 'CREATE', KEYS[2], 'owner', '$', 'MKSTREAM') end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return made and 1 or 0
"""
