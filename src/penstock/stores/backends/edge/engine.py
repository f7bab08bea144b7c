"""Adapter of one engine shard: converts records both ways and translates the engine's errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import qdrant_edge as qe

from penstock.kernel.context import point_id
from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import Arm, ScoredPoint
from penstock.stores.backends import payload_format
from penstock.stores.backends.edge import engine_config, query_builder
from penstock.stores.backends.layout import LEARNED_SPARSE
from penstock.stores.commands import (
    DeleteDocuments,
    ReplaceSparse,
    SealDocument,
    TrimDocument,
    UpsertPoints,
)
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    ChunkVectors,
    Condition,
    DocumentInfo,
    DocumentPage,
    Match,
    PendingPage,
    Point,
    PointPage,
    Range,
    SparseReplacement,
)

#: Commands that change points, applied the same on arrival and on replay.
Update = UpsertPoints | ReplaceSparse | TrimDocument | SealDocument | DeleteDocuments

_UPDATES: Final[dict[type, Callable[[Shard, Any], Any]]] = {
    UpsertPoints: lambda shard, c: shard.upsert(c.points),
    ReplaceSparse: lambda shard, c: shard.replace_sparse(c.points),
    TrimDocument: lambda shard, c: shard.trim_document(c.document_id, c.chunks),
    SealDocument: lambda shard, c: shard.seal_document(c.document),
    DeleteDocuments: lambda shard, c: shard.delete(c.filter),
}

#: Updates that take space on the disk; the others are applied even when it is full.
SPACE_CONSUMING: Final = (UpsertPoints, ReplaceSparse, SealDocument)


def apply_update(shard: Shard, command: Update) -> Any:
    """Apply the command and return its result."""
    return _UPDATES[type(command)](shard, command)


def without_token_vectors(command: Update) -> Update:
    """Return the command without token vectors, for a collection that keeps none."""
    if isinstance(command, UpsertPoints):
        points = [dataclasses.replace(point, token_vectors=None) for point in command.points]
        return msgspec.structs.replace(command, points=points)
    return command


def points_touched(command: Update) -> int:
    """Return about how many points the command touches; a filter counts as one."""
    return len(command.points) if isinstance(command, UpsertPoints | ReplaceSparse) else 1


class Shard:
    """An open shard of the engine. It is synchronous, and the store process's one thread owns it."""

    def __init__(self, shard: qe.EdgeShard) -> None:
        self._shard = shard
        learned = _keeps(shard, qe.Query.Nearest(qe.SparseVector([0], [1.0]), using=LEARNED_SPARSE))
        self.sparse_name = LEARNED_SPARSE if learned else Arm.SPARSE.value

    @classmethod
    def create(cls, path: Path, dim: int, *, learned_sparse: bool = False) -> Shard:
        """Create a shard with its named vectors and payload indexes.

        Args:
            path: Its directory.
            dim: Components of a dense vector.
            learned_sparse: Whether the sparse vectors carry learned term weights, so that the engine applies no IDF.
        """
        vectors = {Arm.DENSE.value: engine_config.dense_params(dim)}
        config = qe.EdgeConfig(
            vectors=vectors,
            sparse_vectors=engine_config.sparse_params(learned_sparse=learned_sparse),
            max_search_threads=engine_config.SEARCH_THREADS,
        )
        with _translate_errors():
            shard = qe.EdgeShard.create(str(path), config)
            for key, params in _INDEXES.items():
                shard.update(qe.UpdateOperation.create_field_index(key, params))
            shard.flush()
        return cls(shard)

    @classmethod
    def load(cls, path: Path, config: qe.EdgeConfig | None = None) -> Shard:
        """Open a shard that is there.

        Args:
            path: Its directory.
            config: Settings that it takes over from now on, if any.

        Raises:
            Unavailable: Another process holds it (``store_locked``), or it cannot be read.
        """
        with _translate_errors():
            return cls(qe.EdgeShard.load(str(path), config))

    @property
    def learned_sparse(self) -> bool:
        """True if the sparse vectors carry learned term weights, so that the engine applies no IDF."""
        return self.sparse_name == LEARNED_SPARSE

    def close(self, *, changed: bool = True) -> None:
        """Flush and close.

        Args:
            changed: Whether there is anything to flush: it takes as long as everything else, also where there is not.
        """
        with _translate_errors():
            if changed:
                self._shard.flush()
            self._shard.close()

    def upsert(self, points: Iterable[Point]) -> None:
        """Write points in one operation of the engine's log."""
        self._update(qe.UpdateOperation.upsert_points([_point(p, self.sparse_name) for p in points]))

    def completed(self, vectors: Iterable[ChunkVectors]) -> list[Point]:
        """Return those of the points that lack them with their vectors."""
        wanted = {(one.document_id, one.chunk): one for one in vectors}
        there = self.fetch_points([point_id(*place) for place in wanted])
        found = (payload_format.with_vectors(one, wanted[one.payload.id, one.payload.chunk]) for one in there)
        return [one for one in found if one is not None]

    def replace_sparse(self, points: Iterable[SparseReplacement]) -> None:
        """Replace the sparse vectors of those of the points that exist."""
        vectors = {point_id(one.document_id, one.chunk): one.sparse for one in points}
        there = self.existing(list(vectors))
        replaced = [
            qe.PointVectors(one, {self.sparse_name: query_builder.engine_sparse_vector(vectors[one])}) for one in there
        ]
        if replaced:
            self._update(qe.UpdateOperation.update_vectors(replaced))

    def trim_document(self, document_id: str, chunks: int) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        surplus = query_builder.engine_filter([Match("id", [document_id]), Range("chunk", gte=float(chunks))])
        self._update(qe.UpdateOperation.delete_points_by_filter(surplus))

    def seal_document(self, document: DocumentInfo) -> None:
        """Write the head's hash and count.

        Raises:
            Unavailable: There is no head any more (``write_conflict``).
        """
        if not self.get_documents([document.id]):
            raise Unavailable(
                "the document was deleted while it was being written; send it again",
                dependency="store",
                code="write_conflict",
            )
        fields = {"hash": document.hash, "chunks": document.chunks}
        self._update(qe.UpdateOperation.set_payload([point_id(document.id, 0)], fields))

    def delete(self, conditions: Sequence[Condition]) -> int:
        """Delete the chunks that match; return how many documents that were."""
        documents = self.count_documents(conditions)
        self._update(qe.UpdateOperation.delete_points_by_filter(query_builder.engine_filter(conditions)))
        return documents

    def count_documents(self, conditions: Sequence[Condition]) -> int:
        """Count the documents that match."""
        return self.count([*conditions, Match("chunk", [0])])

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Count the points that match."""
        with _translate_errors():
            return self._shard.count(qe.CountRequest(exact=True, filter=query_builder.engine_filter(conditions)))

    def count_pending(self, conditions: Sequence[Condition] = (), points: Sequence[str] | None = None) -> int:
        """Count the points without a dense vector that match, among some points if they are given."""
        lacking = query_builder.pending_filter(conditions, points)
        with _translate_errors():
            return self._shard.count(qe.CountRequest(exact=True, filter=lacking))

    def list_pending(self, conditions: Sequence[Condition], after: str | None, limit: int) -> PendingPage:
        """Return a page of the points without a dense vector in the order of their ids."""
        request = qe.ScrollRequest(
            offset=after,
            limit=limit,
            filter=query_builder.pending_filter(conditions),
            with_payload=payload_format.PENDING_FIELDS,
            with_vector=False,
        )
        with _translate_errors():
            found, following = self._shard.scroll(request)
        chunks = [payload_format.decode_pending(one.payload) for one in found]
        return PendingPage(chunks, str(following) if following else None)

    def existing(self, points: Sequence[str]) -> list[str]:
        """Return those of the points that exist."""
        with _translate_errors():
            found = self._shard.retrieve(list(points), with_payload=False, with_vector=False)
        return [str(one.id) for one in found]

    def search_batch(self, searches: Sequence[ArmQuery]) -> list[list[ScoredPoint]]:
        """Answer several one-arm queries as one planned batch."""
        asked = [
            query_builder.arm_query_request(s.vector, s.limit, self.sparse_name, filter=s.filter, among=s.among)
            for s in searches
        ]
        return [[ScoredPoint(str(point.id), point.score) for point in found] for found in self.query_batch(asked)]

    def query_batch(self, requests: list[qe.QueryRequest]) -> list[list[qe.ScoredPoint]]:
        """Run queries as one planned batch, each answered best first."""
        with _translate_errors():
            return self._shard.query_batch(qe.QueryBatchRequest(requests))

    def fetch_token_vectors(self, points: Sequence[qe.PointId]) -> dict[Any, TokenVectors]:
        """Return the token vectors of the points that exist and have some, by the engine's ids."""
        with _translate_errors():
            found = self._shard.retrieve(
                list(points), with_payload=[payload_format.TOKEN_VECTORS_FIELD], with_vector=False
            )
        kept = ((id, payload_format.decode_token_vectors(one.payload)) for id, one in _by_id(points, found))
        return {id: tokens for id, tokens in kept if tokens is not None}

    def fetch_payloads(self, points: Sequence[qe.PointId]) -> dict[Any, ChunkPayload]:
        """Return the payloads of the points that exist, by the engine's ids."""
        with _translate_errors():
            found = self._shard.retrieve(
                list(points), with_payload=payload_format.CHUNK_PAYLOAD_FIELDS, with_vector=False
            )
        return {id: payload_format.decode_payload(one.payload) for id, one in _by_id(points, found)}

    def list_documents(self, conditions: Sequence[Condition], after: str | None, limit: int) -> DocumentPage:
        """Return a page of heads in the order of their point ids."""
        request = qe.ScrollRequest(
            offset=after,
            limit=limit,
            filter=query_builder.engine_filter([*conditions, Match("chunk", [0])]),
            with_payload=payload_format.DOCUMENT_FIELDS,
            with_vector=False,
        )
        with _translate_errors():
            found, following = self._shard.scroll(request)
        return DocumentPage(
            [payload_format.decode_document(r.payload) for r in found], str(following) if following else None
        )

    def get_documents(self, document_ids: Sequence[str]) -> dict[str, DocumentInfo]:
        """Return the heads of those of the documents that exist, by id."""
        ids: list[qe.PointId] = [point_id(document, 0) for document in document_ids]
        with _translate_errors():
            found = self._shard.retrieve(ids, with_payload=payload_format.DOCUMENT_FIELDS, with_vector=False)
        heads = (payload_format.decode_document(one.payload) for one in found)
        return {head.id: head for head in heads}

    def fetch_points(self, points: Sequence[str]) -> list[Point]:
        """Return those of the points that exist, with all their vectors."""
        with _translate_errors():
            found = self._shard.retrieve(list(points), with_payload=True, with_vector=True)
        return [_read(one.payload, one.vector, self.sparse_name) for one in found]

    def scroll_points(self, after: str | None, limit: int) -> PointPage:
        """Return a page of whole points in the order of their ids."""
        request = qe.ScrollRequest(offset=after, limit=limit, with_payload=True, with_vector=True)
        with _translate_errors():
            found, following = self._shard.scroll(request)
        points = [_read(one.payload, one.vector, self.sparse_name) for one in found]
        return PointPage(points, str(following) if following else None)

    def flush(self) -> None:
        """Write everything through to the files; they do not change until the next update."""
        with _translate_errors():
            self._shard.flush()

    def optimize(self) -> None:
        """Build segments and graphs; takes seconds to minutes, in which the interpreter stands still."""
        with _translate_errors():
            self._shard.optimize()

    def points_estimate(self) -> int:
        """Return about how many points there are, at once: without looking at them."""
        with _translate_errors():
            return self._shard.info().points_count

    def _update(self, operation: qe.UpdateOperation) -> None:
        with _translate_errors():
            self._shard.update(operation)


_INDEXES: Final[dict[str, Any]] = {
    **{key: qe.KeywordIndexParams(prefix=prefix) for key, prefix in payload_format.KEYWORD_FIELDS.items()},
    payload_format.CHUNK_FIELD: qe.IntegerIndexParams(lookup=True, range=True),
}


class EnginePanicked(Broken):
    """The engine panicked: its locks may be poisoned, so the process must end and start again."""


#: What the binding raises then; no ``Exception``, and no name to import.
_PANIC: Final = "PanicException"


class _translate_errors:  # noqa: N801 - a context manager reads best in lower case
    """Turn the engine's untyped errors into ours. One table for the backend: ``_ERRORS``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PenstockError):
            return
        text = str(error)
        if type(error).__name__ == _PANIC:
            raise EnginePanicked(f"the store engine failed: {text}", code="store_failed") from error
        if not isinstance(error, Exception):
            return
        if any(sign in text.lower() for sign in _REFUSALS):
            raise Invalid(f"the store engine rejected the request: {text[:MESSAGE_CHARACTERS_MAX]}") from error
        for pattern, code, detail in _ERRORS:
            if pattern in text:
                raise Unavailable(detail, dependency="store", code=code) from error
        raise Broken(f"the store engine failed: {text}", code="store_failed") from error


#: Words of the engine's messages when the request is wrong.
_REFUSALS: Final = ("wrong input", "bad request", "bad input", "validation error", "malformed", "forbidden")

#: Characters of the engine's message about a wrong request that the client is told.
MESSAGE_CHARACTERS_MAX: Final = 200

_ERRORS: Final = (
    ("WouldBlock", "store_locked", "another process holds this data directory's store"),
    ("No space left", "disk_full", "the disk of the data directory is full"),
    ("StorageFull", "disk_full", "the disk of the data directory is full"),
    ("Read-only file system", "disk_read_only", "the disk of the data directory is read-only; nothing is written"),
)


def _point(point: Point, sparse: str) -> qe.Point:
    vectors: dict[str, Any] = {sparse: query_builder.engine_sparse_vector(point.sparse)}
    if point.dense is not None:
        vectors[Arm.DENSE.value] = point.dense.tolist()
    payload = payload_format.encode_payload(point.payload, point.token_vectors)
    return qe.Point(point_id(point.payload.id, point.payload.chunk), vectors, payload)


def _read(payload: dict[str, Any] | None, vectors: Any, sparse: str) -> Point:
    terms, dense = vectors[sparse], vectors.get(Arm.DENSE.value)
    return Point(
        payload_format.decode_payload(payload),
        None if dense is None else np.array(dense, np.float32),
        SparseVector(np.array(terms.indices, np.uint32), np.array(terms.values, np.float32)),
        payload_format.decode_token_vectors(payload),
    )


def _by_id(points: Sequence[qe.PointId], found: Sequence[qe.Record]) -> Iterable[tuple[Any, qe.Record]]:
    """Return records with their ids. They come in the order asked for; to ask each for its id takes longer."""
    return zip(points, found, strict=True) if len(found) == len(points) else ((one.id, one) for one in found)


#: The engine's message for a query of a vector that its shard does not have.
_NO_SUCH_VECTOR: Final = "Not existing vector name"


def _keeps(shard: qe.EdgeShard, query: qe.Query) -> bool:
    """Return whether a shard has a named vector: the engine reports that when queried, even with a vector too short."""
    try:
        shard.query(qe.QueryRequest(limit=1, query=query))
    except Exception as error:  # noqa: BLE001 - the engine's errors have no narrower base
        return _NO_SUCH_VECTOR not in str(error)
    return True
