"""Sources that a server keeps up to date by itself: which may be, and how each of them is."""

from __future__ import annotations

import asyncio
import enum
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock.indexing.sources.index_roots import IndexRoots

#: Seconds that a deletion waits for the end of what is written of its source.
PAUSE_S: Final = 5.0


class WatchState(enum.StrEnum):
    """State of a source that is watched.

    ``starting``: it is about to be indexed. ``indexing``: a run is going on. ``watching``: it is up to date, and
    changes are awaited. ``waiting``: its directory is gone, and its documents stay. ``failed``: the last run could not
    go on; it is tried again.
    """

    STARTING = "starting"
    INDEXING = "indexing"
    WATCHING = "watching"
    WAITING = "waiting"
    FAILED = "failed"


class SourceWatch(msgspec.Struct, frozen=True):
    """The server's watch over a source.

    Attributes:
        state: `starting`, `indexing`, `watching`, `waiting` (its directory is gone) or `failed`.
        detail: What is wrong, or what else there is to say; empty for nothing.
    """

    state: WatchState
    detail: str = ""


class WatchedSource(msgspec.Struct, frozen=True, order=True):
    """A source that this server is to keep up to date."""

    collection: str
    name: str
    root: str


class SourceWatches:
    """The sources that a server keeps up to date, shared by the API and by what watches them.

    Args:
        roots: Where it may.

    Attributes:
        host: Name of this host.
        changed: Set when the records of sources may name others than those that are watched.

    Bounds: one entry for each source that is watched.
    """

    def __init__(self, roots: IndexRoots | None = None) -> None:
        self.roots = roots or IndexRoots("", Path())
        self.host = socket.gethostname()
        self.changed = asyncio.Event()
        self._watches: dict[tuple[str, str], SourceWatch] = {}
        self._paused: Counter[tuple[str, str]] = Counter()
        self._applied = asyncio.Event()

    def begin(self, collection: str, name: str) -> None:
        """Watch a source whose record says so by now."""
        self._watches[collection, name] = SourceWatch(WatchState.STARTING)
        self.changed.set()

    @asynccontextmanager
    async def paused(self, collection: str, name: str = "") -> AsyncIterator[None]:
        """Stop watching a source, or all of a collection, so that nothing of it is written while it is deleted.

        Bounds: ``PAUSE_S``, then the block begins all the same.
        """
        self._paused[collection, name] += 1
        self.changed.set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    while any(self.is_paused(*one) for one in self._watches):
                        await self._applied.wait()
            yield
        finally:
            self._paused[collection, name] -= 1
            self._paused += Counter()
            self.changed.set()

    def is_paused(self, collection: str, name: str) -> bool:
        """Return whether a source is not to be watched now."""
        return self._paused[collection, name] > 0 or self._paused[collection, ""] > 0

    def apply(self, sources: Iterable[WatchedSource]) -> None:
        """Take the sources that are watched by now, and no others."""
        before, starting = self._watches, SourceWatch(WatchState.STARTING)
        self._watches = {key: before.get(key, starting) for key in ((one.collection, one.name) for one in sources)}
        self._applied.set()
        self._applied = asyncio.Event()

    def note(self, collection: str, name: str, watch: SourceWatch) -> None:
        """Take the state of a source that is watched."""
        if (collection, name) in self._watches:
            self._watches[collection, name] = watch

    def find(self, collection: str, name: str) -> SourceWatch | None:
        """Return the watch over a source, ``None`` for one that this server does not watch."""
        return self._watches.get((collection, name))
