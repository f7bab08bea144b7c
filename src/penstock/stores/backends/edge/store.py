"""``VectorStore`` over the store process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.kernel.context import Clock, Context
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.settings import StoreSettings, TimeoutSettings
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.optimize_policy import OptimizePolicy
from penstock.stores.backends.edge.process_client import StoreProcessClient
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    DocumentInfo,
    DocumentInfoPage,
    Filter,
    Point,
    PointPage,
    RetrievalResult,
)


class EdgeStore:
    """Embedded Qdrant in one process; see :class:`penstock.stores.contract.VectorStore` for each method.

    Args:
        data_dir: The data directory; collections live in ``collections`` below it.
        timeouts: The limit of one operation.
        clock: The loop's clock.
        settings: When collections are optimised.
        number: Which of the server's store processes it is, from 0; the second's collections are in ``collections-2``.
        processes: Number of store processes; they share the cache's memory.

    Attributes:
        process: The store process.
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
        rule = OptimizePolicy(kept.optimize_points, kept.optimize_quiet)
        self.process = StoreProcessClient(directory, rule, cache_bytes=kept.cache_bytes // processes)
        self._timeouts = timeouts
        self._clock = clock

    async def start(self) -> None:
        """Start the store process; see :meth:`StoreProcessClient.start`."""
        await self.process.start()

    async def close(self) -> None:
        """Flush everything and end the store process."""
        await self.process.close()

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one."""
        return await self.process.call(ipc.CreateCollection(info), CollectionInfo, self._with_timeout(ctx))

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection."""
        return await self.process.call(ipc.ListCollections(), list[CollectionInfo], self._with_timeout(ctx))

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        return await self.process.call(ipc.DescribeCollection(name), CollectionInfo, self._with_timeout(ctx))

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        await self.process.call(ipc.DropCollection(name), object, self._with_timeout(ctx))

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        command = ipc.UpsertPoints(collection, points)
        await self.process.call(command, object, self._with_timeout(ctx))

    async def trim_document(self, collection: str, document_id: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await self.process.call(ipc.TrimDocument(collection, document_id, chunks), object, self._with_timeout(ctx))

    async def seal_document(self, collection: str, document: DocumentInfo, ctx: Context) -> None:
        """Mark a document complete."""
        await self.process.call(ipc.SealDocument(collection, document), object, self._with_timeout(ctx))

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        command = ipc.DeleteDocuments(collection, filter)
        return await self.process.call(command, int, self._with_timeout(ctx))

    async def retrieve(self, collection: str, query: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        """Answer a search inside the store process, in one round trip."""
        command = ipc.Retrieve(collection, query, filter)
        return await (await self.process.call(command, ipc.RawRetrievalResult, self._with_timeout(ctx))).decoded()

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        """Ask one arm."""
        return (await self.search_batch(collection, [query], ctx))[0]

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        """Ask several arms at once."""
        if not queries:
            return []
        command = ipc.SearchBatch(collection, queries)
        return await self.process.call(command, list[list[ScoredPoint]], self._with_timeout(ctx))

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        command = ipc.FetchTokenVectors(collection, points)
        return await self.process.call(command, dict[str, TokenVectors], self._with_timeout(ctx))

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        command = ipc.FetchPayloads(collection, points)
        return await self.process.call(command, dict[str, ChunkPayload], self._with_timeout(ctx))

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        """Read a page of heads."""
        command = ipc.ListDocuments(collection, filter, after, limit)
        return await self.process.call(command, DocumentInfoPage, self._with_timeout(ctx))

    async def get_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        """Read the heads of given documents."""
        command = ipc.GetDocuments(collection, document_ids)
        heads = await self.process.call(command, list[DocumentInfo], self._with_timeout(ctx))
        return {head.id: head for head in heads}

    async def scroll_points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points."""
        command = ipc.ScrollPoints(collection, after, limit)
        return await self.process.call(command, PointPage, self._with_timeout(ctx))

    async def ping(self, ctx: Context) -> None:
        """Ping the process."""
        await self.process.call(ipc.Ping(), object, self._with_timeout(ctx))

    async def optimize(self, collection: str, ctx: Context) -> None:
        """Start an index build of a collection, after which all its points are indexed; do not wait for it."""
        await self.process.call(ipc.OptimizeCollection(collection), object, self._with_timeout(ctx))

    def _with_timeout(self, ctx: Context) -> Context:
        return ctx.within(self._timeouts.store, "store", self._clock.now())
