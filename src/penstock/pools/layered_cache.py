"""Two-level cache: a local one, and one that servers share, behind a guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.kernel.errors import PenstockError
from penstock.pools.guard import Guard
from penstock.stores.key_value_cache import CacheState, KeyValueCache


class LayeredCache:
    """Two-level :class:`penstock.stores.key_value_cache.KeyValueCache`: the far cache serves what the near one lacks.

    A far cache that fails counts as empty. Only its guard learns of it: the breaker raises an alert and leaves the
    cache alone for a while.
    """

    def __init__(self, near: KeyValueCache, far: KeyValueCache, guard: Guard) -> None:
        self._near = near
        self._far = far
        self._guard = guard

    def __repr__(self) -> str:
        return f"<LayeredCache {self._near!r} before {self._far!r}>"

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the cached value of each key; values found in the far cache only are copied to the near one."""
        found = await self._near.get(keys)
        missing = [place for place, value in enumerate(found) if value is None]
        if not missing:
            return found
        wanted = [keys[place] for place in missing]
        try:
            told = await self._guard.call("get", lambda: self._far.get(wanted))
        except PenstockError:
            return found
        news = {key: value for key, value in zip(wanted, told, strict=True) if value is not None}
        if news:
            await self._near.put(news)
        for place, value in zip(missing, told, strict=True):
            found[place] = value
        return found

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store the entries in both caches."""
        await self._near.put(entries)
        try:
            await self._guard.call("put", lambda: self._far.put(entries))
        except PenstockError:
            return

    def shrink(self, share: float) -> None:
        """Give up the least recently used of the near one."""
        self._near.shrink(share)

    def state(self) -> CacheState:
        """Return the near one's numbers."""
        return self._near.state()
