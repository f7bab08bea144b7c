"""``KeyStore`` in Redis: the keys of all servers on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

from penstock.kernel.access import ApiKey
from penstock.kernel.errors import Unavailable
from penstock.kernel.redaction import redact_url
from penstock.kernel.settings import RedisSettings
from penstock.stores.backends.redis.client import DEPENDENCY, SharedRedisClient
from penstock.stores.key_store import KeyEdit, decode_keys, encode_keys

#: Writes the new document if the old one is still there.
SWAP_SCRIPT: Final = """
if (redis.call('GET', KEYS[1]) or '') == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2])
    return 1
end
return 0
"""
#: Changes at once that one of them may lose to.
ATTEMPTS_MAX: Final = 20


class SharedKeys:
    """See :class:`penstock.stores.key_store.KeyStore`. The keys are at ``REDIS_URL``, which must not evict anything.

    Args:
        settings: Of Redis.
        prefix: Begins all names there.

    Raises:
        Invalid: The URL is not one of Redis.
    """

    def __init__(self, settings: RedisSettings, prefix: str) -> None:
        self.label = redact_url(settings.url)
        self._client = SharedRedisClient(replace(settings, shared_url=""))
        self._name = f"{prefix}:keys"

    def __repr__(self) -> str:
        return f"<SharedKeys {self._name} at {self.label}>"

    async def read(self) -> list[ApiKey] | None:
        """Return the keys, ``None`` where there never were any."""
        data = await self._get()
        return decode_keys(data, self.label) if data else None

    async def change(self, edit: KeyEdit) -> None:
        """Replace the keys by what ``edit`` makes of them."""
        for _ in range(ATTEMPTS_MAX):
            old = await self._get()
            new = encode_keys(edit(decode_keys(old, self.label) if old else []))

            async def swap(redis: Any, old: bytes = old, new: bytes = new) -> Any:
                return await redis.eval(SWAP_SCRIPT, 1, self._name, old, new)

            if await self._client.execute(swap):
                return
        detail = f"the keys in {self.label} are being changed by others; try again"
        raise Unavailable(detail, dependency=DEPENDENCY)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _get(self) -> bytes:
        return cast("bytes | None", await self._client.execute(lambda redis: redis.get(self._name))) or b""
