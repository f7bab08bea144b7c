"""Freshness of collections, remembered for a second: each answer of a tool tells it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from penstock.http.mcp.records import CollectionFreshness
from penstock.indexing.sources.source_watches import SourceWatches, WatchState
from penstock.kernel.context import Clock, Context
from penstock.kernel.errors import PenstockError
from penstock.stores.commands import DescribeCollection, ListSources
from penstock.stores.contract import VectorStore

TTL_S: Final = 1.0
REMEMBERED_MAX: Final = 256
#: Seconds that the store has to tell: an answer does not wait for its footnote.
STORE_TIMEOUT_S: Final = 0.5


class FreshnessCache:
    """Freshness of collections, read from the store at most once in ``TTL_S`` each.

    Bounds: ``REMEMBERED_MAX`` collections, the least recently read dropped first.
    """

    def __init__(self, store: VectorStore, watches: SourceWatches, clock: Clock) -> None:
        self._store, self._watches, self._clock = store, watches, clock
        self._known: OrderedDict[str, tuple[float, CollectionFreshness]] = OrderedDict()

    async def of(self, collections: Iterable[str], ctx: Context) -> list[CollectionFreshness]:
        """Return the freshness of each collection; unknown where the store does not tell in time."""
        return [await self._of_one(name, ctx) for name in collections]

    async def _of_one(self, name: str, ctx: Context) -> CollectionFreshness:
        now_s = self._clock.now()
        until_s, known = self._known.get(name, (0.0, None))
        if known is not None and now_s < until_s:
            return known
        try:
            found = await self._read(name, ctx.within(STORE_TIMEOUT_S, "freshness", now_s))
        except PenstockError:
            return CollectionFreshness(name, "", None, None, watched=False)
        self._known[name] = now_s + TTL_S, found
        self._known.move_to_end(name)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return found

    async def _read(self, name: str, ctx: Context) -> CollectionFreshness:
        info = await self._store.run(DescribeCollection(name), ctx)
        sources = await self._store.run(ListSources(name), ctx)
        watches = [self._watches.find(name, one.name) for one in sources]
        coverage = 1 - info.pending / info.chunks if info.chunks else 1.0
        return CollectionFreshness(
            name,
            indexed_at=max((one.completed_at for one in sources), default=""),
            pending=info.pending,
            coverage=round(max(0.0, coverage), 4),
            watched=bool(watches) and all(one is not None and one.state is WatchState.WATCHING for one in watches),
        )
