"""Several store processes as one store: each holds a shard of every collection (DESIGN §2).

A document and its chunks lie in the shard that the hash of its id names. An operation on one document asks
one process. A search asks all of them at once and merges their hits. The number of shards of a collection is fixed when
it is created.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

import msgspec

from penstock.kernel.context import Context, point_id, run_all
from penstock.kernel.errors import Invalid
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores import commands, program_runner
from penstock.stores.commands import CollectionCommand, StoreCommand
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import (
    STATE_DAMAGED,
    CollectionInfo,
    DocumentInfo,
    DocumentPage,
    PendingPage,
    Point,
    PointPage,
    RetrievalResult,
)

T = TypeVar("T")
R = TypeVar("R")


def shard_of(document: str, shards: int) -> int:
    """Return the number of the shard in which a document lies, from 0."""
    digest = hashlib.blake2b(document.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


class ShardedStore:
    """A ``VectorStore`` over several.

    A shard that cannot answer fails what needs it (``Unavailable``): every search, and the writes of its documents.

    Args:
        stores: The stores, always in the same order.
        shards: Over how many of them new collections are spread.

    Bounds: remembers the spread of each collection that it has been asked about, and counts searches that run.
    """

    def __init__(self, stores: Sequence[VectorStore], shards: int) -> None:
        self._stores = list(stores)
        self._shards = shards
        self._shard_counts: dict[str, int] = {}
        self._blocked: set[str] = set()
        self._searching: Counter[str] = Counter()
        self._searches_changed = asyncio.Condition()

    @asynccontextmanager
    async def block_searches(self, collection: str) -> AsyncIterator[None]:
        """Block the searches of a collection while it is replaced, so that none sees half of each.

        Running searches have ended when the context is entered. Writes are not blocked: they go to the old or new one.
        """
        async with self._searches_changed:
            self._blocked.add(collection)
            await self._searches_changed.wait_for(lambda: not self._searching[collection])
        try:
            yield
        finally:
            self.forget_shard_count(collection)
            async with self._searches_changed:
                self._blocked.discard(collection)
                self._searches_changed.notify_all()

    @asynccontextmanager
    async def _searched(self, collection: str) -> AsyncIterator[None]:
        """Count a running search, once its collection is not blocked."""
        async with self._searches_changed:
            await self._searches_changed.wait_for(lambda: collection not in self._blocked)
            self._searching[collection] += 1
        try:
            yield
        finally:
            self._searching[collection] -= 1
            if not self._searching[collection]:
                del self._searching[collection]
            async with self._searches_changed:
                self._searches_changed.notify_all()

    def forget_shard_count(self, collection: str) -> None:
        """Forget the number of a collection's shards: it may have been restored."""
        self._shard_counts.pop(collection, None)

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command on the shards that it concerns; see :meth:`penstock.stores.contract.VectorStore.run`."""
        result: R = await self._HANDLERS[type(command)](self, command, ctx)
        return result

    async def _create(self, command: commands.CreateCollection, ctx: Context) -> CollectionInfo:
        """Create a collection in as many shards as new ones have, or return the same one."""
        info = command.info
        there = {one.name: one for one in await self._stores[0].run(commands.ListCollections(), ctx)}
        shards = there[info.name].shards if info.name in there else self._shards
        wanted = commands.CreateCollection(msgspec.structs.replace(info, shards=shards))
        # The first is made last: it is the one that says that the collection is there.
        for store in reversed(self._stores[:shards]):
            await store.run(wanted, ctx)
        return await self.run(commands.DescribeCollection(info.name), ctx)

    async def _list(self, command: commands.ListCollections, ctx: Context) -> list[CollectionInfo]:
        """Return every collection that the first shard knows."""
        found = await _gather([store.run(command, ctx) for store in self._stores])
        by_name = [{info.name: info for info in infos} for infos in found]
        self._shard_counts = {info.name: info.shards for info in found[0]}
        return [_merge_infos([infos.get(info.name) for infos in by_name[: info.shards]]) for info in found[0]]

    async def _describe(self, command: commands.DescribeCollection, ctx: Context) -> CollectionInfo:
        first, *others = await self._of(command.collection, ctx)
        parts = await _gather([_part(store, command, ctx) for store in others])
        return _merge_infos([await first.run(command, ctx), *parts])

    async def _drop(self, command: commands.DropCollection, ctx: Context) -> None:
        """Delete a collection; from the first shard last, so that an interrupted deletion can be repeated."""
        # All are asked: over how many a damaged one is spread may not be known.
        for store in reversed(self._stores):
            try:
                await store.run(command, ctx)
            except Invalid as error:
                if error.code != "collection_not_found" or store is self._stores[0]:
                    raise
        self.forget_shard_count(command.collection)

    async def _upsert(self, command: commands.UpsertPoints, ctx: Context) -> None:
        """Write points, each to its document's shard."""
        groups = await self._grouped(command.collection, command.points, lambda point: point.payload.id, ctx)
        await run_all([store.run(commands.UpsertPoints(command.collection, points), ctx) for store, points in groups])

    async def _add_vectors(self, command: commands.AddVectors, ctx: Context) -> None:
        """Add vectors, each in its document's shard."""
        groups = await self._grouped(command.collection, command.vectors, lambda one: one.document_id, ctx)
        await run_all([store.run(commands.AddVectors(command.collection, some), ctx) for store, some in groups])

    async def _replace_sparse(self, command: commands.ReplaceSparse, ctx: Context) -> None:
        """Replace sparse vectors, each in its document's shard."""
        groups = await self._grouped(command.collection, command.points, lambda point: point.document_id, ctx)
        await run_all([store.run(commands.ReplaceSparse(command.collection, points), ctx) for store, points in groups])

    async def _set_text_version(self, command: commands.SetTextVersion, ctx: Context) -> None:
        """Record the version in every shard; whatever part of them has it, :func:`_merge_infos` makes sense of it."""
        await self._each(command, ctx)

    async def _trim(self, command: commands.TrimDocument, ctx: Context) -> None:
        await (await self._with(command.collection, command.document_id, ctx)).run(command, ctx)

    async def _seal(self, command: commands.SealDocument, ctx: Context) -> None:
        await (await self._with(command.collection, command.document.id, ctx)).run(command, ctx)

    async def _delete(self, command: commands.DeleteDocuments, ctx: Context) -> int:
        return sum(await self._each(command, ctx))

    async def _retrieve(self, command: commands.Retrieve, ctx: Context) -> RetrievalResult:
        """Answer a search: in the store process if there is one shard, else step by step over all of them."""
        async with self._searched(command.collection):
            stores = await self._of(command.collection, ctx)
            if len(stores) == 1:
                return await stores[0].run(command, ctx)
            return await program_runner.run_retrieval(self, command, ctx)

    async def _search(self, command: commands.SearchBatch, ctx: Context) -> list[list[ScoredPoint]]:
        """Ask the arms of every shard, and keep the best.

        Scores of the sparse arm weigh terms by how rare they are in their own shard.
        """
        found = await self._each(command, ctx)
        return [_merge_hits(shards, query.limit) for query, *shards in zip(command.queries, *found, strict=True)]

    async def _fetch(self, command: CollectionCommand[Mapping[str, T]], ctx: Context) -> Mapping[str, T]:
        return {point: value for values in await self._each(command, ctx) for point, value in values.items()}

    async def _list_documents(self, command: commands.ListDocuments, ctx: Context) -> DocumentPage:
        """Read a page of heads in the order of their point ids."""
        pages = await self._each(command, ctx)
        heads = sorted((point_id(head.id, 0), head) for page in pages for head in page.documents)
        return DocumentPage(*_merge_page(heads, [page.next for page in pages], command.limit))

    async def _list_pending(self, command: commands.ListPending, ctx: Context) -> PendingPage:
        """Read a page of chunks in the order of their point ids."""
        pages = await self._each(command, ctx)
        chunks = sorted((point_id(one.document_id, one.chunk), one) for page in pages for one in page.chunks)
        return PendingPage(*_merge_page(chunks, [page.next for page in pages], command.limit))

    async def _get_documents(self, command: commands.GetDocuments, ctx: Context) -> dict[str, DocumentInfo]:
        groups = await self._grouped(command.collection, command.document_ids, str, ctx)
        found = await _gather([store.run(commands.GetDocuments(command.collection, ids), ctx) for store, ids in groups])
        return {id: head for heads in found for id, head in heads.items()}

    async def _count_documents(self, command: commands.CountDocuments, ctx: Context) -> int:
        return sum(await self._each(command, ctx))

    async def _fetch_points(self, command: commands.FetchPoints, ctx: Context) -> list[Point]:
        return [point for points in await self._each(command, ctx) for point in points]

    async def _in_first(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command on the first shard, whose record of the collection has its sources."""
        return await self._stores[0].run(command, ctx)

    async def _scroll(self, command: commands.ScrollPoints, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        pages = await self._each(command, ctx)
        points = sorted(((_id(point), point) for page in pages for point in page.points), key=lambda one: one[0])
        return PointPage(*_merge_page(points, [page.next for page in pages], command.limit))

    async def _of(self, collection: str, ctx: Context) -> list[VectorStore]:
        """Return the stores over which a collection is spread."""
        if collection not in self._shard_counts:
            self._shard_counts[collection] = (
                await self._stores[0].run(commands.DescribeCollection(collection), ctx)
            ).shards
        shards = self._shard_counts[collection]
        if shards > len(self._stores):
            raise Invalid(
                f"collection {collection!r} is spread over {shards} store processes, of which"
                f" {len(self._stores)} run; set store.shards to {shards} or more",
                field="collection",
                code="shards_missing",
            )
        return self._stores[:shards]

    async def _with(self, collection: str, document: str, ctx: Context) -> VectorStore:
        stores = await self._of(collection, ctx)
        return stores[shard_of(document, len(stores))]

    async def _grouped(
        self, collection: str, items: Sequence[T], document_of: Callable[[T], str], ctx: Context
    ) -> list[tuple[VectorStore, list[T]]]:
        """Return each store that some of the items belong to, with its items."""
        stores = await self._of(collection, ctx)
        groups: dict[int, list[T]] = defaultdict(list)
        for item in items:
            groups[shard_of(document_of(item), len(stores))].append(item)
        return [(stores[number], group) for number, group in groups.items()]

    async def _each(self, command: CollectionCommand[R], ctx: Context) -> list[R]:
        """Execute a command on every shard of its collection at once."""
        return await _gather([store.run(command, ctx) for store in await self._of(command.collection, ctx)])

    _HANDLERS: ClassVar[Mapping[type, Callable[[Any, Any, Context], Awaitable[Any]]]] = {
        commands.CreateCollection: _create,
        commands.ListCollections: _list,
        commands.DescribeCollection: _describe,
        commands.DropCollection: _drop,
        commands.UpsertPoints: _upsert,
        commands.AddVectors: _add_vectors,
        commands.ReplaceSparse: _replace_sparse,
        commands.SetTextVersion: _set_text_version,
        commands.TrimDocument: _trim,
        commands.SealDocument: _seal,
        commands.DeleteDocuments: _delete,
        commands.Retrieve: _retrieve,
        commands.SearchBatch: _search,
        commands.FetchTokenVectors: _fetch,
        commands.FetchPayloads: _fetch,
        commands.ListDocuments: _list_documents,
        commands.ListPending: _list_pending,
        commands.GetDocuments: _get_documents,
        commands.CountDocuments: _count_documents,
        commands.FetchPoints: _fetch_points,
        commands.ListSources: _in_first,
        commands.PutSource: _in_first,
        commands.DropSource: _in_first,
        commands.ScrollPoints: _scroll,
    }


async def _gather(asked: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once and return what they return, in their order; the first error cancels the others."""
    if len(asked) == 1:
        return [await asked[0]]
    answers: dict[int, T] = {}

    async def keep(number: int, one: Coroutine[Any, Any, T]) -> None:
        answers[number] = await one

    await run_all([keep(number, one) for number, one in enumerate(asked)])
    return [answers[number] for number in range(len(asked))]


def _id(point: Point) -> str:
    return point_id(point.payload.id, point.payload.chunk)


def _merge_page(
    found: Sequence[tuple[str, T]], following: Iterable[str | None], limit: int
) -> tuple[list[T], str | None]:
    """Return the first of the sorted items, and where the next page starts."""
    later = [place for place, _ in found[limit:]] + [place for place in following if place is not None]
    return [item for _, item in found[:limit]], min(later, default=None)


def _merge_hits(found: Iterable[Sequence[ScoredPoint]], limit: int) -> list[ScoredPoint]:
    return heapq.nsmallest(limit, (hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.point))


async def _part(store: VectorStore, command: commands.DescribeCollection, ctx: Context) -> CollectionInfo | None:
    """Return a collection as one store knows it; ``None`` if it does not."""
    try:
        return await store.run(command, ctx)
    except Invalid as error:
        if error.code != "collection_not_found":
            raise
        return None


def _merge_infos(parts: Sequence[CollectionInfo | None]) -> CollectionInfo:
    """Return a collection as a whole: it is damaged if one of its parts is, or is not there; the first is there."""
    infos = [part for part in parts if part is not None]
    state, reason = next(
        ((STATE_DAMAGED, one.reason) for one in infos if one.state == STATE_DAMAGED), (infos[0].state, "")
    )
    if len(infos) < len(parts) and state != STATE_DAMAGED:
        state, reason = STATE_DAMAGED, f"its part in store process {parts.index(None) + 1} is missing"
    return msgspec.structs.replace(
        infos[0],
        state=state,
        reason=reason,
        documents=sum(info.documents for info in infos),
        chunks=sum(info.chunks for info in infos),
        disk_bytes=sum(info.disk_bytes for info in infos),
        indexed=sum(info.indexed for info in infos),
        pending=sum(info.pending for info in infos),
        upkeep=next((info.upkeep for info in infos if info.upkeep), ""),
        text=min(info.text for info in infos),
        renewing=any(info.renewing for info in infos),
    )
