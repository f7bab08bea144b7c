"""A vector store in a dictionary: exact, slow, and as strict as the contract."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from penstock.kernel.context import Context, enforce_deadline, point_id
from penstock.kernel.errors import Expired, Invalid, Unavailable
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import ScoredPoint
from penstock.stores import commands, program_runner
from penstock.stores.commands import StoreCommand
from penstock.stores.contract import VectorStore
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Condition,
    DocumentInfo,
    DocumentPage,
    Except,
    Filter,
    Match,
    PendingChunk,
    PendingPage,
    Point,
    PointPage,
    Prefix,
    Range,
)
from penstock.stores.sources import SourceRecord

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

#: Called before every command; may raise, wait or change the store.
Hook = Callable[[StoreCommand[Any]], Awaitable[None]]

R = TypeVar("R")


async def nothing(_command: StoreCommand[Any]) -> None:
    """Let every command pass."""


class MemoryStore:
    """See :class:`penstock.stores.contract.VectorStore`.

    Args:
        hook: Called before every command.
        limit_s: How long an operation may take at most.

    Attributes:
        hook: Where a test takes hold.
        asked: Every command so far.
    """

    def __init__(self, hook: Hook = nothing, limit_s: float = math.inf) -> None:
        self.hook = hook
        self._limit_s = limit_s
        self.asked: list[StoreCommand[Any]] = []
        self._infos: dict[str, CollectionInfo] = {}
        self._points: dict[str, dict[str, Point]] = {}
        self._sources: dict[str, dict[str, SourceRecord]] = {}

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        if isinstance(command, commands.Retrieve):
            return await program_runner.run_retrieval(self, command, ctx)
        self.asked.append(command)
        limited = ctx.within(self._limit_s, "store", asyncio.get_running_loop().time())
        async with enforce_deadline(limited.deadline):
            await self.hook(command)
        if ctx.deadline.passed(asyncio.get_running_loop().time()):
            raise Expired(ctx.deadline.operation)
        return _HANDLERS[type(command)](self, command)

    def count(self, kind: type) -> int:
        """Return how many commands of a kind were asked for."""
        return sum(isinstance(command, kind) for command in self.asked)

    def _create(self, info: CollectionInfo) -> CollectionInfo:
        if not 1 <= len(info.name) <= 64 or not NAME_CHARACTERS.issuperset(info.name) or info.name[0] in "_.-":
            raise Invalid("bad name", field="collection", code="invalid_name")
        there = self._infos.get(info.name)
        if there is None:
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            self._infos[info.name] = msgspec.structs.replace(info, created_at=now)
            self._points[info.name] = {}
            self._sources[info.name] = {}
        elif (there.dim, there.model, there.sparse) != (info.dim, info.model, info.sparse):
            raise Invalid("another layout", field="collection", code="collection_conflict")
        return self._describe(info.name)

    def _drop(self, name: str) -> None:
        self._of(name)
        del self._infos[name], self._points[name], self._sources[name]

    def _upsert(self, command: commands.UpsertPoints) -> None:
        there = self._of(command.collection)
        keeps = self._infos[command.collection].token_dim
        kept = [point if keeps else dataclasses.replace(point, token_vectors=None) for point in command.points]
        there.update({_id(point.payload): point for point in kept})

    def _add_vectors(self, command: commands.AddVectors) -> None:
        there = self._of(command.collection)
        keeps = self._infos[command.collection].token_dim
        for one in command.vectors:
            point = there.get(point_id(one.document_id, one.chunk))
            if point is not None and point.dense is None and point.payload.pending == one.pending:
                payload = msgspec.structs.replace(point.payload, pending="")
                there[_id(payload)] = Point(payload, one.dense, point.sparse, one.token_vectors if keeps else None)

    def _list_pending(self, command: commands.ListPending) -> PendingPage:
        found = sorted(
            (place, point.payload)
            for place, point in self._of(command.collection).items()
            if point.dense is None and matches(point.payload, command.filter) and place >= (command.after or "")
        )
        following = found[command.limit][0] if len(found) > command.limit else None
        return PendingPage(
            [PendingChunk(one.id, one.chunk, one.path, one.language) for _, one in found[: command.limit]], following
        )

    def _replace_sparse(self, command: commands.ReplaceSparse) -> None:
        there = self._of(command.collection)
        for one in command.points:
            place = point_id(one.document_id, one.chunk)
            if place in there:
                there[place] = dataclasses.replace(there[place], sparse=one.sparse)

    def _set_text_version(self, command: commands.SetTextVersion) -> None:
        self._of(command.collection)
        info = self._infos[command.collection]
        self._infos[command.collection] = msgspec.structs.replace(info, text=command.text, renewing=command.renewing)

    def _trim(self, command: commands.TrimDocument) -> None:
        document = command.document_id
        self._remove(command.collection, lambda payload: payload.id == document and payload.chunk >= command.chunks)

    def _seal(self, command: commands.SealDocument) -> None:
        head = command.document
        points, place = self._of(command.collection), point_id(head.id, 0)
        if place not in points:
            raise Unavailable("the document is gone", dependency="store", code="write_conflict")
        point = points[place]
        payload = msgspec.structs.replace(point.payload, hash=head.hash, chunks=head.chunks)
        points[place] = Point(payload, point.dense, point.sparse, point.token_vectors)

    def _delete(self, command: commands.DeleteDocuments) -> int:
        gone = self._remove(command.collection, lambda payload: matches(payload, command.filter))
        return sum(payload.chunk == 0 for payload in gone)

    def _search(self, collection: str, query: ArmQuery) -> list[ScoredPoint]:
        points = self._of(collection)
        if isinstance(query.vector, SparseVector):
            scores = _sparse_scores(points, query.vector, learned=bool(self._infos[collection].sparse))
        else:
            scores = {
                place: float(point.dense @ query.vector) for place, point in points.items() if point.dense is not None
            }
        wanted = None if query.among is None else set(query.among)
        found = [
            ScoredPoint(place, score)
            for place, score in scores.items()
            if matches(points[place].payload, query.filter) and (wanted is None or place in wanted)
        ]
        return sorted(found, key=lambda scored: (-scored.score, scored.point))[: query.limit]

    def _fetch(self, command: commands.FetchPayloads | commands.FetchTokenVectors, name: str) -> dict[str, Any]:
        there = self._of(command.collection)
        found = {place: getattr(there[place], name) for place in command.points if place in there}
        return {place: value for place, value in found.items() if value is not None}

    def _list_documents(self, command: commands.ListDocuments) -> DocumentPage:
        after, limit = command.after or "", command.limit
        found = sorted(
            (place, point.payload)
            for place, point in self._of(command.collection).items()
            if point.payload.chunk == 0 and matches(point.payload, command.filter) and place >= after
        )
        following = found[limit][0] if len(found) > limit else None
        return DocumentPage([_head(payload) for _, payload in found[:limit]], following)

    def _scroll(self, command: commands.ScrollPoints) -> PointPage:
        there = self._of(command.collection)
        places = sorted(place for place in there if place >= (command.after or ""))
        return PointPage([there[place] for place in places[: command.limit]], next(iter(places[command.limit :]), None))

    def _get_documents(self, command: commands.GetDocuments) -> dict[str, DocumentInfo]:
        there = self._of(command.collection)
        places = {document: point_id(document, 0) for document in command.document_ids}
        return {document: _head(there[place].payload) for document, place in places.items() if place in there}

    def _count_documents(self, command: commands.CountDocuments) -> int:
        points = self._of(command.collection).values()
        return sum(point.payload.chunk == 0 and matches(point.payload, command.filter) for point in points)

    def _fetch_points(self, command: commands.FetchPoints) -> list[Point]:
        there = self._of(command.collection)
        return [there[place] for place in command.points if place in there]

    def _list_sources(self, collection: str) -> list[SourceRecord]:
        self._of(collection)
        return [source for _, source in sorted(self._sources[collection].items())]

    def _put_source(self, command: commands.PutSource) -> None:
        self._of(command.collection)
        self._sources[command.collection][command.source.name] = command.source

    def _drop_source(self, command: commands.DropSource) -> None:
        self._of(command.collection)
        self._sources[command.collection].pop(command.name, None)

    def _of(self, collection: str) -> dict[str, Point]:
        if collection not in self._points:
            raise Invalid(f"no collection {collection!r}", field="collection", code="collection_not_found")
        return self._points[collection]

    def _describe(self, name: str) -> CollectionInfo:
        points = self._of(name).values()
        documents = sum(point.payload.chunk == 0 for point in points)
        pending = sum(point.dense is None for point in points)
        return msgspec.structs.replace(self._infos[name], documents=documents, chunks=len(points), pending=pending)

    def _remove(self, collection: str, unwanted: Callable[[ChunkPayload], bool]) -> list[ChunkPayload]:
        points = self._of(collection)
        gone = {place: point.payload for place, point in points.items() if unwanted(point.payload)}
        for place in gone:
            del points[place]
        return list(gone.values())


_HANDLERS: dict[type, Callable[[MemoryStore, Any], Any]] = {
    commands.CreateCollection: lambda store, c: store._create(c.info),
    commands.ListCollections: lambda store, _: [store._describe(name) for name in sorted(store._infos)],
    commands.DescribeCollection: lambda store, c: store._describe(c.collection),
    commands.DropCollection: lambda store, c: store._drop(c.collection),
    commands.UpsertPoints: MemoryStore._upsert,
    commands.AddVectors: MemoryStore._add_vectors,
    commands.ReplaceSparse: MemoryStore._replace_sparse,
    commands.SetTextVersion: MemoryStore._set_text_version,
    commands.TrimDocument: MemoryStore._trim,
    commands.SealDocument: MemoryStore._seal,
    commands.DeleteDocuments: MemoryStore._delete,
    commands.SearchBatch: lambda store, c: [store._search(c.collection, query) for query in c.queries],
    commands.FetchTokenVectors: lambda store, c: store._fetch(c, "token_vectors"),
    commands.FetchPayloads: lambda store, c: store._fetch(c, "payload"),
    commands.ListDocuments: MemoryStore._list_documents,
    commands.ListPending: MemoryStore._list_pending,
    commands.GetDocuments: MemoryStore._get_documents,
    commands.CountDocuments: MemoryStore._count_documents,
    commands.FetchPoints: MemoryStore._fetch_points,
    commands.ListSources: lambda store, c: store._list_sources(c.collection),
    commands.PutSource: MemoryStore._put_source,
    commands.DropSource: MemoryStore._drop_source,
    commands.ScrollPoints: MemoryStore._scroll,
}


async def search_arm(store: VectorStore, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
    """Return the best points of one arm."""
    return (await store.run(commands.SearchBatch(collection, [query]), ctx))[0]


def matches(payload: ChunkPayload, filter: Filter) -> bool:
    """Whether every condition holds."""
    return all(_holds(payload, condition) for condition in filter)


def _holds(payload: ChunkPayload, condition: Condition) -> bool:
    values = list(_values(payload, condition.key))
    if isinstance(condition, Match):
        return any(_same(value, wanted) for value in values for wanted in condition.values)
    if isinstance(condition, Except):
        return not any(value in condition.values for value in values)
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
    return DocumentInfo(payload.id, payload.hash, payload.chunks, payload.path, payload.source)


def unit(*components: float) -> np.ndarray:
    """Return ``float32 [n]`` of length 1."""
    vector = np.array(components, np.float32)
    return vector / np.linalg.norm(vector)


def sparse(**terms: float) -> SparseVector:
    """Return a sparse vector of terms named ``t1``, ``t2`` and so on."""
    numbers = [int(name.removeprefix("t")) for name in terms]
    return SparseVector(np.array(numbers, np.uint32), np.array(list(terms.values()), np.float32))
