"""A vector store in a dictionary: exact, slow, and as strict as the contract."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from penstock.kernel.context import Context, enforce_deadline, point_id
from penstock.kernel.errors import Expired, Invalid, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores import program_runner
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Condition,
    DocumentInfo,
    DocumentInfoPage,
    Filter,
    Match,
    Point,
    PointPage,
    Prefix,
    Range,
    RetrievalResult,
)

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

#: Called before every operation with its name and argument; may raise, wait or change the store.
Hook = Callable[[str, Any], Awaitable[None]]


async def nothing(_operation: str, _argument: Any) -> None:
    """Let every operation pass."""


class MemoryStore:
    """See :class:`penstock.stores.contract.VectorStore`.

    Args:
        hook: Called before every operation.
        limit_s: How long an operation may take at most.

    Attributes:
        hook: Where a test takes hold.
        asked: Every operation so far, with its argument.
    """

    def __init__(self, hook: Hook = nothing, limit_s: float = math.inf) -> None:
        self.hook = hook
        self._limit_s = limit_s
        self.asked: list[tuple[str, Any]] = []
        self._infos: dict[str, CollectionInfo] = {}
        self._points: dict[str, dict[str, Point]] = {}

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        await self._begin("create", info, ctx)
        if not 1 <= len(info.name) <= 64 or not NAME_CHARACTERS.issuperset(info.name) or info.name[0] in "_.-":
            raise Invalid("bad name", field="collection", code="invalid_name")
        there = self._infos.get(info.name)
        if there is None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            self._infos[info.name] = msgspec.structs.replace(info, created_at=now)
            self._points[info.name] = {}
        elif (there.dim, there.model, there.sparse) != (info.dim, info.model, info.sparse):
            raise Invalid("another layout", field="collection", code="collection_conflict")
        return self._describe(info.name)

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        await self._begin("collections", None, ctx)
        return [self._describe(name) for name in sorted(self._infos)]

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        await self._begin("collection", name, ctx)
        return self._describe(name)

    async def drop(self, name: str, ctx: Context) -> None:
        await self._begin("drop", name, ctx)
        self._of(name)
        del self._infos[name], self._points[name]

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        await self._begin("upsert", points, ctx)
        keeps = self._infos[collection].token_dim if collection in self._infos else 0
        kept = [point if keeps else dataclasses.replace(point, token_vectors=None) for point in points]
        self._of(collection).update({_id(point.payload): point for point in kept})

    async def trim_document(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        await self._begin("trim_document", document, ctx)
        self._remove(collection, lambda payload: payload.id == document and payload.chunk >= chunks)

    async def seal_document(self, collection: str, head: DocumentInfo, ctx: Context) -> None:
        await self._begin("seal_document", head, ctx)
        points, place = self._of(collection), point_id(head.id, 0)
        if place not in points:
            raise Unavailable("the document is gone", dependency="store", code="write_conflict")
        point = points[place]
        payload = msgspec.structs.replace(point.payload, hash=head.hash, chunks=head.chunks)
        points[place] = Point(payload, point.dense, point.sparse, point.token_vectors)

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        await self._begin("delete", filter, ctx)
        gone = self._remove(collection, lambda payload: matches(payload, filter))
        return sum(payload.chunk == 0 for payload in gone)

    async def retrieve(self, collection: str, wanted: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        return await program_runner.run_retrieval(self, collection, wanted, filter, ctx)

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        await self._begin("search", query, ctx)
        return self._search(collection, query)

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        if not queries:
            return []
        await self._begin("search_batch", queries, ctx)
        return [self._search(collection, query) for query in queries]

    def _search(self, collection: str, query: ArmQuery) -> list[ScoredPoint]:
        points = self._of(collection)
        if isinstance(query.vector, SparseVector):
            scores = _sparse_scores(points, query.vector, learned=bool(self._infos[collection].sparse))
        else:
            scores = {place: float(point.dense @ query.vector) for place, point in points.items()}
        wanted = None if query.among is None else set(query.among)
        found = [
            ScoredPoint(place, score)
            for place, score in scores.items()
            if matches(points[place].payload, query.filter) and (wanted is None or place in wanted)
        ]
        return sorted(found, key=lambda scored: (-scored.score, scored.point))[: query.limit]

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        await self._begin("fetch_token_vectors", points, ctx)
        there = self._of(collection)
        return {
            place: there[place].token_vectors
            for place in points
            if place in there and there[place].token_vectors is not None
        }

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        await self._begin("fetch_payloads", points, ctx)
        there = self._of(collection)
        return {place: there[place].payload for place in points if place in there}

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        await self._begin("list_documents", after, ctx)
        found = sorted(
            (place, point.payload)
            for place, point in self._of(collection).items()
            if point.payload.chunk == 0 and matches(point.payload, filter) and place >= (after or "")
        )
        following = found[limit][0] if len(found) > limit else None
        return DocumentInfoPage([_head(payload) for _, payload in found[:limit]], following)

    async def scroll_points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        await self._begin("scroll_points", after, ctx)
        there = self._of(collection)
        places = sorted(place for place in there if place >= (after or ""))
        return PointPage([there[place] for place in places[:limit]], next(iter(places[limit:]), None))

    async def get_documents(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, DocumentInfo]:
        await self._begin("get_documents", documents, ctx)
        there = self._of(collection)
        places = {document: point_id(document, 0) for document in documents}
        return {document: _head(there[place].payload) for document, place in places.items() if place in there}

    async def _begin(self, operation: str, argument: Any, ctx: Context) -> None:
        self.asked.append((operation, argument))
        limited = ctx.within(self._limit_s, "store", asyncio.get_running_loop().time())
        async with enforce_deadline(limited.deadline):
            await self.hook(operation, argument)
        if ctx.deadline.passed(asyncio.get_running_loop().time()):
            raise Expired(ctx.deadline.operation)

    def _of(self, collection: str) -> dict[str, Point]:
        if collection not in self._points:
            raise Invalid(f"no collection {collection!r}", field="collection", code="collection_not_found")
        return self._points[collection]

    def _describe(self, name: str) -> CollectionInfo:
        points = self._of(name).values()
        documents = sum(point.payload.chunk == 0 for point in points)
        return msgspec.structs.replace(self._infos[name], documents=documents, chunks=len(points))

    def _remove(self, collection: str, unwanted: Callable[[ChunkPayload], bool]) -> list[ChunkPayload]:
        points = self._of(collection)
        gone = {place: point.payload for place, point in points.items() if unwanted(point.payload)}
        for place in gone:
            del points[place]
        return list(gone.values())


def matches(payload: ChunkPayload, filter: Filter) -> bool:
    """Whether every condition holds."""
    return all(_holds(payload, condition) for condition in filter)


def _holds(payload: ChunkPayload, condition: Condition) -> bool:
    values = list(_values(payload, condition.key))
    if isinstance(condition, Match):
        return any(_same(value, wanted) for value in values for wanted in condition.values)
    if isinstance(condition, Prefix):
        return any(isinstance(value, str) and value.startswith(condition.prefix) for value in values)
    return any(_within(value, condition) for value in values)


def _values(payload: ChunkPayload, key: str) -> Iterable[Any]:
    if not key.startswith("metadata."):
        return [getattr(payload, key)]
    return _below(payload.metadata, key.removeprefix("metadata."))


def _below(value: Any, path: str | None) -> Iterable[Any]:
    """Yield what lies at a path, whether its dots mean nesting or belong to a key."""
    if isinstance(value, list):
        for item in value:
            yield from _below(item, path)
    elif path is None:
        if value is not None and not isinstance(value, dict):
            yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == path:
                yield from _below(inner, None)
            elif path.startswith(f"{key}."):
                yield from _below(inner, path.removeprefix(f"{key}."))


def _same(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def _within(value: Any, bounds: Range) -> bool:
    if isinstance(value, bool):
        return False
    limits = {name: bound for name in ("gt", "gte", "lt", "lte") if (bound := getattr(bounds, name)) is not None}
    timed = any(isinstance(bound, str) for bound in limits.values())
    if isinstance(value, str) is not timed:
        return False
    if timed:
        try:
            value = _time(value)
        except ValueError:
            return False
        limits = {name: _time(bound) for name, bound in limits.items()}
    compare = {
        "gt": lambda bound: value > bound,
        "gte": lambda bound: value >= bound,
        "lt": lambda bound: value < bound,
        "lte": lambda bound: value <= bound,
    }
    return all(compare[name](bound) for name, bound in limits.items())


def _time(text: str) -> dt.datetime:
    when = dt.datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


def _sparse_scores(points: Mapping[str, Point], query: SparseVector, *, learned: bool) -> dict[str, float]:
    """Return ``Σ query · value · idf`` of the points that share a term (Robertson's idf, as Lucene; learned: 1)."""
    vectors = {
        place: dict(zip(point.sparse.indices.tolist(), point.sparse.values.tolist(), strict=True))
        for place, point in points.items()
    }
    frequency = Counter(term for vector in vectors.values() for term in vector)
    total = sum(bool(vector) for vector in vectors.values())
    scores = {}
    for place, vector in vectors.items():
        shared = [
            (weight * vector[term], frequency[term])
            for term, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True)
            if term in vector
        ]
        if shared:
            idf = {n: 1.0 if learned else math.log((total - n + 0.5) / (n + 0.5) + 1) for _, n in shared}
            scores[place] = sum(share * idf[n] for share, n in shared)
    return scores


def _id(payload: ChunkPayload) -> str:
    return point_id(payload.id, payload.chunk)


def _head(payload: ChunkPayload) -> DocumentInfo:
    return DocumentInfo(payload.id, payload.hash, payload.chunks, payload.path)


def unit(*components: float) -> np.ndarray:
    """Return ``float32 [n]`` of length 1."""
    vector = np.array(components, np.float32)
    return vector / np.linalg.norm(vector)


def sparse(**terms: float) -> SparseVector:
    """Return a sparse vector of terms named ``t1``, ``t2`` and so on."""
    numbers = [int(name.removeprefix("t")) for name in terms]
    return SparseVector(np.array(numbers, np.uint32), np.array(list(terms.values()), np.float32))
