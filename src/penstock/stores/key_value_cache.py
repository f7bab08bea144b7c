"""Contract of caches: bytes by key, bounded, allowed to forget any entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]


class CacheState(msgspec.Struct, frozen=True):
    """A cache now, and since the start.

    Attributes:
        name: Whose it is, in the metrics.
        entries: Entries held now.
        bytes: What they take up, keys and overhead included.
        hits: Keys asked for and found, since the start.
        misses: Keys asked for and not found.
        evictions: Entries evicted for lack of space.
    """

    name: str
    entries: Count
    bytes: Count
    hits: Count
    misses: Count
    evictions: Count


class ShrinkableCache(Protocol):
    """A cache that can be shrunk when memory is short."""

    def shrink(self, share: float) -> None:
        """Evict the least recently used until at most ``share`` of the present entries and bytes is left.

        For a process that runs short of memory (D5). A cache outside of this process does nothing. Repeated
        calls leave it empty. The bounds stay, so it fills again afterwards.
        """

    def state(self) -> CacheState:
        """Return the numbers; those of a shared cache are this process's own."""


class KeyValueCache(ShrinkableCache, Protocol):
    """Cache of byte strings, which may forget any of them at any time.

    A cache that fails raises ``Unavailable``. The caller goes on as if it had forgotten
    everything. A backend across the network answers or gives up within milliseconds by
    its own timeout: callers pass no deadline.

    Bounds: entries and bytes, by least recent use; and an age, where the backend was given one.

    Cancellation: A cancelled ``put`` may have stored some of its entries.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the cached value of each key, ``None`` for a miss, in their order."""

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Store entries; one that is larger than the whole cache is not stored."""
