-- One question to an instance's buckets; see bucket.rs, which does the same.
-- KEYS: requests, tokens. ARGV: requests a minute (-1: not limited), requests asked for, tokens a minute
-- (-1: not limited), tokens used, the longest debt. Moments are microseconds of this server.
local MINUTE = 60000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function read(key)
  return math.max(tonumber(redis.call('GET', key) or '0'), now)
end
local function charge(key, full, count, limit)
  full = math.min(full + math.ceil(count * MINUTE / math.max(limit, 1)), now + tonumber(ARGV[5]))
  if full > now then
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
  end
  return full
end
local function room(full, limit)
  return math.floor(math.max(MINUTE - (full - now), 0) * limit / MINUTE)
end
local function until_one(full, limit)
  return math.max(full - now + math.ceil(MINUTE / math.max(limit, 1)) - MINUTE, 0)
end

local request_limit, asked = tonumber(ARGV[1]), tonumber(ARGV[2])
local token_limit, used = tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, wait = -1, 0
local granted = asked
if token_limit >= 0 then
  local full = charge(KEYS[2], read(KEYS[2]), used, token_limit)
  tokens = room(full, token_limit)
  wait = until_one(full, token_limit)
  if tokens == 0 then granted = 0 end
end
if request_limit >= 0 then
  local full = read(KEYS[1])
  local fits = room(full, request_limit)
  if fits == 0 then wait = math.max(wait, until_one(full, request_limit)) end
  granted = math.min(granted, fits)
  charge(KEYS[1], full, granted, request_limit)
end
return {granted, tokens, wait}
