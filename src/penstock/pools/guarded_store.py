"""Vector store behind its guard: the same Protocol, refused at once while the breaker is open."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.kernel.late_interaction import TokenVectors
from penstock.pools.guard import Guard
from penstock.pools.remote_dependency import RemoteDependency
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores.contract import VectorStore, check_usable
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    DocumentInfo,
    DocumentInfoPage,
    Filter,
    Point,
    RetrievalResult,
)

T = TypeVar("T")


def ignore_removal(_collection: str) -> None:
    """Ignore a removal."""


#: Collections known to fit; when there are more, all are forgotten and checked again.
COMPATIBLE_MAX: Final = 10_000
#: The name of a prepared model: its own, and the fingerprint of what was prepared, and for which processor.
_PREPARED: Final = re.compile(r"\A(?P<name>.+)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """Layout of the vectors of this server's models; vectors of two models never mix.

    Attributes:
        model: The dense model's name.
        dim: Its dimension.
        sparse_model: Name of a model of learned sparse vectors; empty for BM25.
    """

    model: str
    dim: int
    sparse_model: str = ""

    def check(self, info: CollectionInfo) -> None:
        """Refuse a collection that other models made.

        Raises:
            Invalid: Both are named (``collection_conflict``).
        """
        if (info.model, info.dim, info.sparse) == (self.model, self.dim, self.sparse_model):
            return
        theirs, ours = (
            _describe_model(info.model, info.dim, info.sparse),
            _describe_model(self.model, self.dim, self.sparse_model),
        )
        cure = (
            " (made for another kind of processor: see PENSTOCK_MODEL_PRECISION)"
            if _differ_in_fingerprint_only(info.model, self.model)
            else ""
        )
        raise Invalid(
            f"collection {info.name!r} holds vectors of {theirs}, and this server makes those of {ours}; start it with"
            f" the models of the collection{cure}, or index into another one",
            field="collection",
            code="collection_conflict",
        )


def _differ_in_fingerprint_only(*models: str) -> bool:
    """Return whether models of these names differ in their fingerprints alone."""
    names = {found["name"] if (found := _PREPARED.fullmatch(model)) else model for model in models}
    return len(names) == 1 < len(set(models))


def _describe_model(model: str, dim: int, learned: str) -> str:
    return f"{model} ({dim}-d)" + (f" with {learned}" if learned else "")


class GuardedStore:
    """A ``VectorStore`` behind a guard; see :class:`penstock.stores.contract.VectorStore` for each method.

    Args:
        inner: The store.
        guard: Its breaker; every method may raise ``CircuitOpen``.
        on_removed: Called with the collection's name when something may have been removed from it, so that
            remembered answers are forgotten; also when the removal failed half-way or was cancelled.
        layout: Layout of the server's models; points are written to and searched in a collection of that layout
            only. Without it, in every one.
        remote: Limits and retries toward a store that is another server, by the same guard.

    Bounds: ``COMPATIBLE_MAX`` names of collections that fit.
    """

    def __init__(
        self,
        inner: VectorStore,
        guard: Guard,
        on_removed: Callable[[str], None] = ignore_removal,
        layout: VectorLayout | None = None,
        remote: RemoteDependency | None = None,
    ) -> None:
        self._inner = inner
        self._guard = guard
        self._on_removed = on_removed
        self._layout = layout
        self._remote = remote
        self._compatible: set[str] = set()

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one."""
        return await self._call("create", lambda: self._inner.create(info, ctx), ctx)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection."""
        return await self._call("collections", lambda: self._inner.collections(ctx), ctx)

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        return await self._call("collection", lambda: self._inner.collection(name, ctx), ctx)

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        self._compatible.discard(name)
        try:
            await self._call("drop", lambda: self._inner.drop(name, ctx), ctx, idempotent=False)
        finally:
            self._compatible.discard(name)
            self._on_removed(name)

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        await self._check_layout(collection, ctx)
        await self._call("upsert", lambda: self._inner.upsert(collection, points, ctx), ctx)

    async def trim_document(self, collection: str, document_id: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await self._call("trim", lambda: self._inner.trim_document(collection, document_id, chunks, ctx), ctx)

    async def seal_document(self, collection: str, document: DocumentInfo, ctx: Context) -> None:
        """Mark a document complete."""
        await self._call("seal", lambda: self._inner.seal_document(collection, document, ctx), ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        try:
            # Not again: the second time it would count nothing.
            make = lambda: self._inner.delete(collection, filter, ctx)  # noqa: E731 - needed here alone
            return await self._call("delete", make, ctx, idempotent=False)
        finally:
            self._on_removed(collection)

    async def retrieve(self, collection: str, query: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        """Answer a search."""
        await self._check_layout(collection, ctx)
        return await self._call("search", lambda: self._inner.retrieve(collection, query, filter, ctx), ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        """Ask one arm."""
        await self._check_layout(collection, ctx)
        return await self._call("search", lambda: self._inner.search(collection, query, ctx), ctx)

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        """Ask several arms at once."""
        await self._check_layout(collection, ctx)
        return await self._call("search", lambda: self._inner.search_batch(collection, queries, ctx), ctx)

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        await self._check_layout(collection, ctx)
        return await self._call("tokens", lambda: self._inner.fetch_token_vectors(collection, points, ctx), ctx)

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        return await self._call("fetch", lambda: self._inner.fetch_payloads(collection, points, ctx), ctx)

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        """Read a page of document heads."""
        return await self._call("heads", lambda: self._inner.list_documents(collection, filter, after, limit, ctx), ctx)

    async def get_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        """Read the heads of given documents."""
        return await self._call("find", lambda: self._inner.get_documents(collection, document_ids, ctx), ctx)

    async def _call(
        self, operation: str, make: Callable[[], Awaitable[T]], ctx: Context, *, idempotent: bool = True
    ) -> T:
        """Call the store through its guard; retry a remote store's transient failure where that does no harm."""
        if self._remote is None:
            return await self._guard.call(operation, make)
        return await self._remote.call(operation, make, ctx, idempotent=idempotent)

    async def _check_layout(self, collection: str, ctx: Context) -> None:
        """Refuse a collection of another layout; asks the store once for each collection.

        Raises:
            Invalid: Other models made it.
            CollectionDamaged: It cannot be opened.
        """
        if self._layout is None or collection in self._compatible:
            return
        info = await self.collection(collection, ctx)
        check_usable(info)
        self._layout.check(info)
        if len(self._compatible) >= COMPATIBLE_MAX:
            self._compatible.clear()
        self._compatible.add(collection)
