"""Several store processes as one store: each holds a shard of every collection (DESIGN §2).

A document and its chunks lie in the shard that the hash of its id names. What is about one document asks
one process, a search asks all of them at once and merges what they find. Over how many a collection is
spread is fixed when it is made.
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

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.kernel.ids import point_id
from penstock.kernel.late import TokenVectors
from penstock.kernel.together import together
from penstock.ranking.records import Retrieval, Scored
from penstock.stores import driving
from penstock.stores.contract import MovableStore
from penstock.stores.records import (
    DAMAGED,
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
        self._spread: dict[str, int] = {}
        self._held: set[str] = set()
        self._searching: Counter[str] = Counter()
        self._turn = asyncio.Condition()

    @asynccontextmanager
    async def exchanging(self, collection: str) -> AsyncIterator[None]:
        """Hold the searches of a collection back while another takes its place: none sees half of each.

        Those that run have ended when this is entered. Writes are not held back: they go to the one or the other.
        """
        async with self._turn:
            self._held.add(collection)
            await self._turn.wait_for(lambda: not self._searching[collection])
        try:
            yield
        finally:
            self.forget(collection)
            async with self._turn:
                self._held.discard(collection)
                self._turn.notify_all()

    @asynccontextmanager
    async def _searched(self, collection: str) -> AsyncIterator[None]:
        """Count a search, once its collection is not held back."""
        async with self._turn:
            await self._turn.wait_for(lambda: collection not in self._held)
            self._searching[collection] += 1
        try:
            yield
        finally:
            self._searching[collection] -= 1
            if not self._searching[collection]:
                del self._searching[collection]
            async with self._turn:
                self._turn.notify_all()

    def forget(self, collection: str) -> None:
        """Ask anew how a collection is spread: it may have been restored."""
        self._spread.pop(collection, None)

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
        found = await _all([store.collections(ctx) for store in self._stores])
        by_name = [{info.name: info for info in infos} for infos in found]
        self._spread = {info.name: info.shards for info in found[0]}
        return [_summed([infos.get(info.name) for infos in by_name[: info.shards]]) for info in found[0]]

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection."""
        first, *others = await self._of(name, ctx)
        parts = await _all([_part(store, name, ctx) for store in others])
        return _summed([await first.collection(name, ctx), *parts])

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection; from the first shard last, so that an interrupted deletion can be repeated."""
        # All are asked: over how many a damaged one is spread may not be known.
        for store in reversed(self._stores):
            try:
                await store.drop(name, ctx)
            except Invalid as error:
                if error.code != "collection_not_found" or store is self._stores[0]:
                    raise
        self.forget(name)

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points, each to its document's shard."""
        stores = await self._of(collection, ctx)
        groups: dict[int, list[Point]] = defaultdict(list)
        for point in points:
            groups[shard_of(point.payload.id, len(stores))].append(point)
        await together([stores[number].upsert(collection, group, ctx) for number, group in groups.items()])

    async def trim(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        """Delete surplus chunks."""
        await (await self._with(collection, document, ctx)).trim(collection, document, chunks, ctx)

    async def seal(self, collection: str, head: Head, ctx: Context) -> None:
        """Mark a document complete."""
        await (await self._with(collection, head.id, ctx)).seal(collection, head, ctx)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete documents."""
        return sum(await self._each(collection, ctx, lambda store: store.delete(collection, filter, ctx)))

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
        """Answer a search: where the points are if they lie in one shard, else step by step over all of them."""
        async with self._searched(collection):
            stores = await self._of(collection, ctx)
            if len(stores) == 1:
                return await stores[0].retrieve(collection, wanted, filter, ctx)
            return await driving.retrieve(self, collection, wanted, filter, ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[Scored]:
        """Ask one arm of every shard, and keep the best.

        Scores of the sparse arm weigh terms by how rare they are in their own shard.
        """
        found = await self._each(collection, ctx, lambda store: store.search(collection, query, ctx))
        return _best(found, query.limit)

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[Scored]]:
        """Ask several arms of every shard at once."""
        if not queries:
            return []
        found = await self._each(collection, ctx, lambda store: store.search_all(collection, queries, ctx))
        return [_best(shards, query.limit) for query, *shards in zip(queries, *found, strict=True)]

    async def tokens(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, TokenVectors]:
        """Read token vectors."""
        found = await self._each(collection, ctx, lambda store: store.tokens(collection, points, ctx))
        return {place: vectors for tokens in found for place, vectors in tokens.items()}

    async def fetch(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Read payloads."""
        found = await self._each(collection, ctx, lambda store: store.fetch(collection, points, ctx))
        return {place: payload for payloads in found for place, payload in payloads.items()}

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context) -> HeadPage:
        """Read a page of heads in the order of their point ids."""
        pages = await self._each(collection, ctx, lambda store: store.heads(collection, filter, after, limit, ctx))
        heads = sorted((point_id(head.id, 0), head) for page in pages for head in page.heads)
        later = [place for place, _ in heads[limit:]] + [page.next for page in pages if page.next is not None]
        return HeadPage([head for _, head in heads[:limit]], min(later, default=None))

    async def find(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, Head]:
        """Read the heads of given documents."""
        stores = await self._of(collection, ctx)
        groups: dict[int, list[str]] = defaultdict(list)
        for document in documents:
            groups[shard_of(document, len(stores))].append(document)
        found = await _all([stores[number].find(collection, group, ctx) for number, group in groups.items()])
        return {id: head for heads in found for id, head in heads.items()}

    async def points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Read a page of whole points in the order of their ids."""
        pages = await self._each(collection, ctx, lambda store: store.points(collection, after, limit, ctx))
        points = sorted(((_id(point), point) for page in pages for point in page.points), key=lambda one: one[0])
        later = [place for place, _ in points[limit:]] + [page.next for page in pages if page.next is not None]
        return PointPage([point for _, point in points[:limit]], min(later, default=None))

    async def _of(self, collection: str, ctx: Context) -> list[MovableStore]:
        """Return the stores over which a collection is spread."""
        if collection not in self._spread:
            self._spread[collection] = (await self._stores[0].collection(collection, ctx)).shards
        shards = self._spread[collection]
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
        return await _all([ask(store) for store in await self._of(collection, ctx)])


async def _all(asked: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once and return what they return, in their order; the first error cancels the others."""
    if len(asked) == 1:
        return [await asked[0]]
    answers: dict[int, T] = {}

    async def keep(number: int, one: Coroutine[Any, Any, T]) -> None:
        answers[number] = await one

    await together([keep(number, one) for number, one in enumerate(asked)])
    return [answers[number] for number in range(len(asked))]


def _id(point: Point) -> str:
    return point_id(point.payload.id, point.payload.chunk)


def _best(found: Iterable[Sequence[Scored]], limit: int) -> list[Scored]:
    return heapq.nsmallest(limit, (hit for hits in found for hit in hits), key=lambda hit: (-hit.score, hit.point))


async def _part(store: MovableStore, name: str, ctx: Context) -> CollectionInfo | None:
    """Return a collection as one store knows it; ``None`` if it does not."""
    try:
        return await store.collection(name, ctx)
    except Invalid as error:
        if error.code != "collection_not_found":
            raise
        return None


def _summed(parts: Sequence[CollectionInfo | None]) -> CollectionInfo:
    """Return a collection as a whole: it is damaged if one of its parts is, or is not there; the first is there."""
    infos = [part for part in parts if part is not None]
    state, reason = next(((DAMAGED, one.reason) for one in infos if one.state == DAMAGED), (infos[0].state, ""))
    if len(infos) < len(parts) and state != DAMAGED:
        state, reason = DAMAGED, f"its part in store process {parts.index(None) + 1} is missing"
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
