"""``TokenSource`` in Redis: one hash for each client whose bucket is not full; the time is Redis's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from penstock.policies.leases import Ask, Grant
from penstock.stores.backends.redis.link import RedisLink

#: Charges what is owed, gives what is there of what is wanted, and tells the level left, for each bucket. A bucket that
#: is full is no key at all, so that only clients who are active now take up room.
RESERVE: Final = """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local answer = {}
for i, key in ipairs(KEYS) do
    local want, owed = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
    local kept = redis.call('HMGET', key, 'level', 'at')
    local level = burst
    if kept[1] then
        level = math.min(burst, tonumber(kept[1]) + rate * math.max(0, now - tonumber(kept[2])))
    end
    level = math.min(burst, level - owed)
    local grant = math.max(0, math.min(want, math.floor(level)))
    level = level - grant
    if level >= burst then
        redis.call('DEL', key)
    else
        redis.call('HSET', key, 'level', string.format('%.6f', level), 'at', string.format('%.6f', now))
        redis.call('PEXPIRE', key, math.ceil((burst - level) / rate * 1000) + 1000)
    end
    answer[2 * i - 1], answer[2 * i] = grant, string.format('%.6f', level)
end
return answer
"""


class RedisTokens:
    """See :class:`penstock.stores.rates.TokenSource`.

    Args:
        link: Redis.
        prefix: Begins all names there.

    Bounds: a key for each client whose bucket is not full; Redis forgets it when it is.
    """

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._root = f"{prefix}:rate:"

    async def reserve(self, asks: Sequence[Ask], rate: float, burst: float) -> list[Grant]:
        """Take tokens for several clients in one exchange."""
        keys = [self._root + ask.client for ask in asks]
        amounts = [amount for ask in asks for amount in (ask.want, ask.owed)]

        async def exchange(redis: Any) -> Any:
            return await redis.eval(RESERVE, len(keys), *keys, rate, burst, *amounts)

        told = await self._link.ask(exchange)
        return [Grant(int(told[n]), float(told[n + 1])) for n in range(0, len(told), 2)]
