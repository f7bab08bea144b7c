"""``VectorStore`` over the store process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.late import TokenVectors
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.ranking.records import Retrieval, Scored
from penstock.stores.backends.edge import packing, wire
from penstock.stores.backends.edge.link import StoreLink
from penstock.stores.backends.edge.upkeep import Rule
from penstock.stores.records import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Filter,
    Head,
    HeadPage,
    Point,
    PointPage,
    Retrieved,
)


class EdgeStore:
    """Embedded Qdrant in one process; see :class:`penstock.stores.contract.VectorStore` for each method.

    Args:
        data_dir: The data directory; collections live in ``collections`` below it.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: When collections are optimised.
        number: Which of the server's store processes it is, from 0; the second's collections are in ``collections-2``.
        processes: How many there are; they share what may be remembered.

    Attributes:
        link: The store process.
    """

    def __init__(
        self,
        data_dir: Path,
        timeouts: TimeoutSettings,
        clock: Clock,
        settings: StoreSettings | None = None,
        number: int = 0,
        processes: int = 1,
    ) -> None:
        kept = settings or StoreSettings()
        directory = data_dir / (f"collections-{number + 1}" if number else "collections")
        rule = Rule(kept.optimize_points, kept.optimize_quiet)
        self.link = StoreLink(directory, rule, cache_bytes=kept.cache_bytes // processes)
        self._timeouts = timeouts
        self._clock = clock

    async def start(self) -> None:
        """Start the store process; see :meth:`StoreLink.start`."""
        await self.link.start()

    async def close(self) -> None:
        """Flush everything and end the store process."""
        await self.link.close()

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one."""
        return await self.link.ask(wire.Create(info), CollectionInfo, self._limited(ctx))

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection."""
        return await self.link.ask(wire.ListCollections(), list[CollectionInfo], self._limited(ctx))

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        return await self.link.ask(wire.Describe(name), CollectionInfo, self._limited(ctx))

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        await self.link.ask(wire.Drop(name), object, self._limited(ctx))

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        command = wire.Upsert(collection, [packing.pack_point(p) for p in points])
        await self.link.ask(command, object, self._limited(ctx))

    async def trim(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await self.link.ask(wire.Trim(collection, document, chunks), object, self._limited(ctx))

    async def seal(self, collection: str, head: Head, ctx: Context) -> None:
        """Mark a document complete."""
        await self.link.ask(wire.Seal(collection, head), object, self._limited(ctx))

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        command = wire.Delete(collection, list(filter))
        return await self.link.ask(command, int, self._limited(ctx))

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
        """Answer a search where the points are: in one round trip."""
        command = packing.pack_retrieval(collection, wanted, filter)
        found = await self.link.ask(command, wire.ReadHits, self._limited(ctx))
        failures = {what: wire.error_of(failure) for what, failure in found.failures.items()}
        return Retrieved(await packing.unpack_hits(found.hits), failures, found.stages, found.cut)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[Scored]:
        """Ask one arm."""
        return (await self.search_all(collection, [query], ctx))[0]

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[Scored]]:
        """Ask several arms at once."""
        if not queries:
            return []
        command = wire.SearchAll(collection, [packing.pack_search(query) for query in queries])
        return await self.link.ask(command, list[list[Scored]], self._limited(ctx))

    async def tokens(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        found = await self.link.ask(wire.Tokens(collection, list(points)), dict[str, wire.Late], self._limited(ctx))
        return {point: packing.unpack_late(vectors) for point, vectors in found.items()}

    async def fetch(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        command = wire.Fetch(collection, list(points))
        return await self.link.ask(command, dict[str, ChunkPayload], self._limited(ctx))

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context) -> HeadPage:
        """Read a page of heads."""
        command = wire.Heads(collection, list(filter), after, limit)
        return await self.link.ask(command, HeadPage, self._limited(ctx))

    async def find(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, Head]:
        """Read the heads of given documents."""
        command = wire.Find(collection, list(documents))
        heads = await self.link.ask(command, list[Head], self._limited(ctx))
        return {head.id: head for head in heads}

    async def points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points."""
        command = wire.ReadPoints(collection, after, limit)
        page = await self.link.ask(command, wire.WirePage, self._limited(ctx))
        return PointPage([packing.unpack_point(point) for point in page.points], page.next)

    async def ping(self, ctx: Context) -> None:
        """Ask the process for a sign of life."""
        await self.link.ask(wire.Ping(), object, self._limited(ctx))

    async def optimize(self, collection: str, ctx: Context) -> None:
        """Begin a new generation of a collection, in which all its points are indexed; do not wait for it."""
        await self.link.ask(wire.Optimize(collection), object, self._limited(ctx))

    def _limited(self, ctx: Context) -> Context:
        return ctx.within(self._timeouts.store, "store", self._clock.now())
