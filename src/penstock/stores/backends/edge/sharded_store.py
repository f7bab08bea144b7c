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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from penstock.kernel.context import Context, point_id, run_all
from penstock.kernel.errors import Invalid
from penstock.kernel.late_interaction import TokenVectors
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores import program_runner
from penstock.stores.contract import MovableStore
from penstock.stores.data_model import (
    STATE_DAMAGED,
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

T = TypeVar("T")


def shard_of(document: str, shards: int) -> int:
    """Return the number of the shard in which a document lies, from 0."""
    digest = hashlib.blake2b(document.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


class ShardedStore:
    """A ``MovableStore`` over several; see :class:`penstock.stores.contract.VectorStore` for each method.

    A shard that cannot answer fails what needs it (``Unavailable``): every search, and the writes of its documents.

    Args:
        stores: The stores, always in the same order.
        shards: Over how many of them new collections are spread.

    Bounds: remembers the spread of each collection that it has been asked about, and counts searches that run.
    """

    def __init__(self, stores: Sequence[MovableStore], shards: int) -> None:
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

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection in as many shards as new ones have, or return the same one."""
        there = {one.name: one for one in await self._stores[0].collections(ctx)}
        shards = there[info.name].shards if info.name in there else self._shards
        wanted = msgspec.structs.replace(info, shards=shards)
        # The first is made last: it is the one that says that the collection is there.
        for store in reversed(self._stores[:shards]):
            await store.create(wanted, ctx)
        return await self.collection(info.name, ctx)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection that the first shard knows."""
        found = await _gather([store.collections(ctx) for store in self._stores])
        by_name = [{info.name: info for info in infos} for infos in found]
        self._shard_counts = {info.name: info.shards for info in found[0]}
        return [_merge_infos([infos.get(info.name) for infos in by_name[: info.shards]]) for info in found[0]]

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        first, *others = await self._of(name, ctx)
        parts = await _gather([_part(store, name, ctx) for store in others])
        return _merge_infos([await first.collection(name, ctx), *parts])

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection; from the first shard last, so that an interrupted deletion can be repeated."""
        # All are asked: over how many a damaged one is spread may not be known.
        for store in reversed(self._stores):
            try:
                await store.drop(name, ctx)
            except Invalid as error:
                if error.code != "collection_not_found" or store is self._stores[0]:
                    raise
        self.forget_shard_count(name)

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points, each to its document's shard."""
        stores = await self._of(collection, ctx)
        groups: dict[int, list[Point]] = defaultdict(list)
        for point in points:
            groups[shard_of(point.payload.id, len(stores))].append(point)
        await run_all([stores[number].upsert(collection, group, ctx) for number, group in groups.items()])

    async def trim_document(self, collection: str, document_id: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await (await self._with(collection, document_id, ctx)).trim_document(collection, document_id, chunks, ctx)

    async def seal_document(self, collection: str, document: DocumentInfo, ctx: Context) -> None:
        """Mark a document complete."""
        await (await self._with(collection, document.id, ctx)).seal_document(collection, document, ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        return sum(await self._each(collection, ctx, lambda store: store.delete(collection, filter, ctx)))

    async def retrieve(self, collection: str, query: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        """Answer a search: in the store process if there is one shard, else step by step over all of them."""
        async with self._searched(collection):
            stores = await self._of(collection, ctx)
            if len(stores) == 1:
                return await stores[0].retrieve(collection, query, filter, ctx)
            return await program_runner.run_retrieval(self, collection, query, filter, ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        """Ask one arm of every shard, and keep the best.

        Scores of the sparse arm weigh terms by how rare they are in their own shard.
        """
        found = await self._each(collection, ctx, lambda store: store.search(collection, query, ctx))
        return _merge_hits(found, query.limit)

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        """Ask several arms of every shard at once."""
        if not queries:
            return []
        found = await self._each(collection, ctx, lambda store: store.search_batch(collection, queries, ctx))
        return [_merge_hits(shards, query.limit) for query, *shards in zip(queries, *found, strict=True)]

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        found = await self._each(collection, ctx, lambda store: store.fetch_token_vectors(collection, points, ctx))
        return {place: vectors for tokens in found for place, vectors in tokens.items()}

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        found = await self._each(collection, ctx, lambda store: store.fetch_payloads(collection, points, ctx))
        return {place: payload for payloads in found for place, payload in payloads.items()}

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        """Read a page of heads in the order of their point ids."""
        pages = await self._each(
            collection, ctx, lambda store: store.list_documents(collection, filter, after, limit, ctx)
        )
        heads = sorted((point_id(head.id, 0), head) for page in pages for head in page.heads)
        later = [place for place, _ in heads[limit:]] + [page.next for page in pages if page.next is not None]
        return DocumentInfoPage([head for _, head in heads[:limit]], min(later, default=None))

    async def get_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        """Read the heads of given documents."""
        stores = await self._of(collection, ctx)
        groups: dict[int, list[str]] = defaultdict(list)
        for document in document_ids:
            groups[shard_of(document, len(stores))].append(document)
        found = await _gather(
            [stores[number].get_documents(collection, group, ctx) for number, group in groups.items()]
        )
        return {id: head for heads in found for id, head in heads.items()}

    async def scroll_points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        pages = await self._each(collection, ctx, lambda store: store.scroll_points(collection, after, limit, ctx))
        points = sorted(((_id(point), point) for page in pages for point in page.points), key=lambda one: one[0])
        later = [place for place, _ in points[limit:]] + [page.next for page in pages if page.next is not None]
        return PointPage([point for _, point in points[:limit]], min(later, default=None))

    async def _of(self, collection: str, ctx: Context) -> list[MovableStore]:
        """Return the stores over which a collection is spread."""
        if collection not in self._shard_counts:
            self._shard_counts[collection] = (await self._stores[0].collection(collection, ctx)).shards
        shards = self._shard_counts[collection]
        if shards > len(self._stores):
            raise Invalid(
                f"collection {collection!r} is spread over {shards} store processes, of which"
                f" {len(self._stores)} run; set store.shards to {shards} or more",
                field="collection",
                code="shards_missing",
            )
        return self._stores[:shards]

    async def _with(self, collection: str, document: str, ctx: Context) -> MovableStore:
        stores = await self._of(collection, ctx)
        return stores[shard_of(document, len(stores))]

    async def _each(
        self, collection: str, ctx: Context, ask: Callable[[MovableStore], Coroutine[Any, Any, T]]
    ) -> list[T]:
        """Ask every shard of a collection at once."""
        return await _gather([ask(store) for store in await self._of(collection, ctx)])


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


def _merge_hits(found: Iterable[Sequence[ScoredPoint]], limit: int) -> list[ScoredPoint]:
    return heapq.nsmallest(limit, (hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.point))


async def _part(store: MovableStore, name: str, ctx: Context) -> CollectionInfo | None:
    """Return a collection as one store knows it; ``None`` if it does not."""
    try:
        return await store.collection(name, ctx)
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
        upkeep=next((info.upkeep for info in infos if info.upkeep), ""),
    )
