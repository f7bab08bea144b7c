"""The cache as the rest of the house sees it: bytes by key, bounded, allowed to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CacheState:
    """A cache in numbers.

    Attributes:
        name: Whose it is, in the metrics.
        entries: Entries held now.
        bytes: What they take up, keys and overhead included.
        hits: Keys asked for and found, since the start.
        misses: Keys asked for and not found.
        evictions: Entries given up for want of room.
    """

    name: str
    entries: int
    bytes: int
    hits: int
    misses: int
    evictions: int


class Remembering(Protocol):
    """Something that remembers, and can forget for want of memory."""

    def shrink(self, share: float) -> None:
        """Give up the least recently used until at most ``share`` of the present entries and bytes is left.

        For a process that runs short of memory (D5); what lives elsewhere does nothing. Asked
        again and again it ends up empty; the bounds stay, so it fills again afterwards.

        Args:
            share: 0 to 1.
        """
        ...

    def state(self) -> CacheState:
        """Return the numbers; those of a shared cache are this process's own."""
        ...


class Cache(Remembering, Protocol):
    """Remembers bytes for a while; may forget any of them at any time.

    A cache that is out of order raises ``Unavailable``; whoever asks it goes on as if it had
    forgotten everything. A backend that is a network away answers or gives up within milliseconds by
    a limit of its own: nobody hands it a deadline.

    Bounds: entries and bytes, by least recent use; and an age, where the backend was given one.

    Cancellation: A cancelled ``put`` may have stored some of its entries.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is remembered for each key, in their order."""
        ...

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Remember these; what is larger than the whole cache is not taken."""
        ...
