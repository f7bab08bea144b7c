"""The store behind its guard: the same Protocol, refused at once while the breaker is open."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.kernel.late import TokenVectors
from penstock.pools.guard import Guard
from penstock.pools.remote import Remote
from penstock.ranking.records import Retrieval, Scored
from penstock.stores.contract import VectorStore
from penstock.stores.errors import check_usable
from penstock.stores.records import ArmQuery, ChunkPayload, CollectionInfo, Filter, Head, HeadPage, Point, Retrieved

T = TypeVar("T")


def nobody_listens(_collection: str) -> None:
    """Hear of a removal and do nothing."""


#: Collections known to fit; beyond them each is asked for anew.
FITTING_MAX: Final = 10_000
#: The name of a prepared model: its own, and the fingerprint of what was prepared, and for which processor.
_PREPARED: Final = re.compile(r"\A(?P<name>.+)-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Layout:
    """What this server's models make: vectors of two models never mix.

    Attributes:
        model: The dense model's name.
        dim: Its dimension.
        learned: Name of a model of learned sparse vectors; empty for BM25.
    """

    model: str
    dim: int
    learned: str = ""

    def check(self, info: CollectionInfo) -> None:
        """Refuse a collection that other models made.

        Raises:
            Invalid: Both are named (``collection_conflict``).
        """
        if (info.model, info.dim, info.sparse) == (self.model, self.dim, self.learned):
            return
        theirs, ours = _named(info.model, info.dim, info.sparse), _named(self.model, self.dim, self.learned)
        cure = (
            " (made for another kind of processor: see PENSTOCK_MODEL_PRECISION)"
            if _alike(info.model, self.model)
            else ""
        )
        raise Invalid(
            f"collection {info.name!r} holds vectors of {theirs}, and this server makes those of {ours}; start it with"
            f" the models of the collection{cure}, or index into another one",
            field="collection",
            code="collection_conflict",
        )


def _alike(*models: str) -> bool:
    """Return whether models of these names differ in their fingerprints alone."""
    names = {found["name"] if (found := _PREPARED.fullmatch(model)) else model for model in models}
    return len(names) == 1 < len(set(models))


def _named(model: str, dim: int, learned: str) -> str:
    return f"{model} ({dim}-d)" + (f" with {learned}" if learned else "")


class GuardedStore:
    """A ``VectorStore`` behind a guard; see :class:`penstock.stores.contract.VectorStore` for each method.

    Args:
        inner: The store.
        guard: Its breaker; every method may raise ``CircuitOpen``.
        removed: Called with the collection's name when something may have been removed from it, so that
            remembered answers are forgotten; also when the removal failed half-way or was cancelled.
        layout: What the server's models make; points are written to and searched in a collection of that layout
            only. Without it, in every one.
        remote: Limits and retries toward a store that is another server, by the same guard.

    Bounds: ``FITTING_MAX`` names of collections that fit.
    """

    def __init__(
        self,
        inner: VectorStore,
        guard: Guard,
        removed: Callable[[str], None] = nobody_listens,
        layout: Layout | None = None,
        remote: Remote | None = None,
    ) -> None:
        self._inner = inner
        self._guard = guard
        self._removed = removed
        self._layout = layout
        self._remote = remote
        self._fitting: set[str] = set()

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection or return the same one."""
        return await self._ask("create", lambda: self._inner.create(info, ctx), ctx)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection."""
        return await self._ask("collections", lambda: self._inner.collections(ctx), ctx)

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        return await self._ask("collection", lambda: self._inner.collection(name, ctx), ctx)

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection."""
        self._fitting.discard(name)
        try:
            await self._ask("drop", lambda: self._inner.drop(name, ctx), ctx, idempotent=False)
        finally:
            self._fitting.discard(name)
            self._removed(name)

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points."""
        await self._check(collection, ctx)
        await self._ask("upsert", lambda: self._inner.upsert(collection, points, ctx), ctx)

    async def trim(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await self._ask("trim", lambda: self._inner.trim(collection, document, chunks, ctx), ctx)

    async def seal(self, collection: str, head: Head, ctx: Context) -> None:
        """Mark a document complete."""
        await self._ask("seal", lambda: self._inner.seal(collection, head, ctx), ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        try:
            # Not again: the second time it would count nothing.
            make = lambda: self._inner.delete(collection, filter, ctx)  # noqa: E731 - needed here alone
            return await self._ask("delete", make, ctx, idempotent=False)
        finally:
            self._removed(collection)

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
        """Answer a search."""
        await self._check(collection, ctx)
        return await self._ask("search", lambda: self._inner.retrieve(collection, wanted, filter, ctx), ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[Scored]:
        """Ask one arm."""
        await self._check(collection, ctx)
        return await self._ask("search", lambda: self._inner.search(collection, query, ctx), ctx)

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[Scored]]:
        """Ask several arms at once."""
        await self._check(collection, ctx)
        return await self._ask("search", lambda: self._inner.search_all(collection, queries, ctx), ctx)

    async def tokens(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        await self._check(collection, ctx)
        return await self._ask("tokens", lambda: self._inner.tokens(collection, points, ctx), ctx)

    async def fetch(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        return await self._ask("fetch", lambda: self._inner.fetch(collection, points, ctx), ctx)

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context) -> HeadPage:
        """Read a page of heads."""
        return await self._ask("heads", lambda: self._inner.heads(collection, filter, after, limit, ctx), ctx)

    async def find(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, Head]:
        """Read the heads of given documents."""
        return await self._ask("find", lambda: self._inner.find(collection, documents, ctx), ctx)

    async def _ask(
        self, operation: str, make: Callable[[], Awaitable[T]], ctx: Context, *, idempotent: bool = True
    ) -> T:
        """Ask the store, if it may be asked now; again where it failed in passing and that does no harm."""
        if self._remote is None:
            return await self._guard.call(operation, make)
        return await self._remote.call(operation, make, ctx, idempotent=idempotent)

    async def _check(self, collection: str, ctx: Context) -> None:
        """Refuse a collection of another layout; asks the store once for each collection.

        Raises:
            Invalid: Other models made it.
            CollectionDamaged: It cannot be opened.
        """
        if self._layout is None or collection in self._fitting:
            return
        info = await self.collection(collection, ctx)
        check_usable(info)
        self._layout.check(info)
        if len(self._fitting) >= FITTING_MAX:
            self._fitting.clear()
        self._fitting.add(collection)
