"""The vector store as the rest of the house sees it.

A collection holds points; a point is one chunk of one document, with a dense vector, a sparse vector, token vectors
where the collection keeps them, and a payload. The point of chunk 0 is the document's *head*: it carries the document's
hash and chunk count, and it is written (or sealed) last, so that a head with a hash means that the whole document is
there. There is no second catalogue that could disagree with the points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.kernel.errors import Invalid, PenstockError
from penstock.kernel.late import TokenVectors
from penstock.kernel.vectors import SparseVector
from penstock.kernel.work import Work
from penstock.ranking.records import Place, Retrieval, Scored

Scalar = str | int | float | bool


class Match(msgspec.Struct, frozen=True, tag="match"):
    """The field equals one of the values."""

    key: str
    values: list[Scalar]


class Prefix(msgspec.Struct, frozen=True, tag="prefix"):
    """The field, a string, starts with ``prefix``."""

    key: str
    prefix: str


class Range(msgspec.Struct, frozen=True, tag="range"):
    """The field lies in a range: numbers, or RFC 3339 date-times as strings."""

    key: str
    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None


Condition = Match | Prefix | Range

#: Conditions that must all hold; empty matches everything.
Filter = tuple[Condition, ...]


class ChunkPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is stored beside a point's vectors.

    Attributes:
        id: The document's id.
        chunk: Number of the chunk in its document, from 0.
        path: Path shown to people, empty for documents that have none.
        text: The chunk's text, exactly as in the source.
        start_line: First line, from 1.
        end_line: Last line, inclusive.
        symbol: Qualified enclosing symbol or heading trail, may be empty.
        language: Lower-case language name.
        metadata: The document's own metadata.
        hash: On chunk 0 only: the document's content hash; empty while it is being written.
        chunks: On chunk 0 only: number of chunks in the document.
    """

    id: str
    chunk: int
    text: str
    path: str = ""
    start_line: int = 1
    end_line: int = 1
    symbol: str = ""
    language: str = ""
    metadata: dict[str, object] = msgspec.field(default_factory=dict)
    hash: str = ""
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One chunk, ready to be stored.

    Attributes:
        payload: What is stored beside the vectors; its ``id`` and ``chunk`` give the point's id.
        dense: ``float32 [dim]``, L2-normalised.
        sparse: Sparse vector of the chunk's sparse text.
        late: Token vectors, ``int8 [rows, late]``, at least one; a collection that keeps none leaves them aside.
    """

    payload: ChunkPayload
    dense: NDArray[np.float32]
    sparse: SparseVector
    late: TokenVectors | None = None


class Head(msgspec.Struct, frozen=True):
    """A document as its chunk 0 tells it.

    Attributes:
        id: The document's id.
        hash: Content hash; empty when the document was not completely written.
        chunks: How many chunks it has.
        path: Its path, may be empty.
    """

    id: str
    hash: str
    chunks: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class HeadPage:
    """A page of heads and where the next one starts (``None``: this was the last)."""

    heads: list[Head]
    next: str | None


class CollectionInfo(msgspec.Struct, frozen=True):
    """A collection's layout and size.

    Attributes:
        name: Its name.
        dim: Dimension of its dense vectors.
        model: Name of the model that made them.
        documents: Completely written documents and those being written.
        chunks: Points.
        created_at: RFC 3339, UTC.
        disk_bytes: What its files take up.
        indexed: Points that its generation has indexed; later ones are compared one by one.
        shards: Over how many store processes it is spread; fixed when it is made.
        sparse: Name of the model of its sparse vectors, where they say themselves what a term is worth; empty for
            BM25, whose vectors are weighed by how rare a term is in the collection.
        upkeep: How far its next generation is: ``copying``, ``optimising`` or ``replaying``; empty if none is made.
        late: Components of its token vectors; 0 for a collection that keeps none, because it was made before there
            were any, or by a model that gives none: its hits are ranked without late interaction.
    """

    name: str
    dim: int
    model: str
    documents: int = 0
    chunks: int = 0
    created_at: str = ""
    disk_bytes: int = 0
    indexed: int = 0
    upkeep: str = ""
    shards: int = 1
    late: int = 0
    sparse: str = ""


@dataclass(frozen=True, slots=True)
class ArmQuery:
    """What one arm looks for, or what known candidates are measured by.

    Attributes:
        vector: Dense ``float32 [dim]``, or a sparse vector; its type chooses the arm.
        limit: Hits wanted.
        filter: Conditions that hits must meet.
        among: Only these points, where given; for exact scores of known candidates.
    """

    vector: NDArray[np.float32] | SparseVector
    limit: int
    filter: Filter = ()
    among: Sequence[str] | None = field(default=None)


class Found(msgspec.Struct, frozen=True, array_like=True):
    """A hit.

    Attributes:
        point: Its id.
        score: The last stage's; comparable within one answer only.
        payload: What is stored beside its vectors.
        places: Where every stage put it, if that was asked for.
    """

    point: str
    score: float
    payload: ChunkPayload
    places: dict[str, Place]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """An answer.

    Attributes:
        hits: Best first.
        failures: What had to be left out, an arm by its name or ``rerank``, and why.
        stages: Milliseconds by stage (:func:`penstock.ranking.course.stage_of`); searches that are answered together
            share them.
    """

    hits: list[Found]
    failures: Mapping[str, PenstockError]
    stages: Mapping[str, float] = field(default_factory=dict)


class VectorStore(Protocol):
    """Collections of points.

    Every method raises ``Invalid`` (code ``collection_not_found``) for an unknown collection,
    ``Expired`` at the work's deadline and ``Unavailable`` when the store cannot answer.

    Cancellation: a cancelled read leaves nothing behind; a cancelled write may or may not have
    happened, and repeating it is safe (point ids are derived).
    """

    async def create(self, info: CollectionInfo, work: Work) -> CollectionInfo:
        """Create a collection, or return the one that is there with the same layout.

        Raises:
            Invalid: One of that name exists with another dimension or model
                (``collection_conflict``), or the name is not allowed.
        """
        ...

    async def collections(self, work: Work) -> list[CollectionInfo]:
        """Return every collection, by name."""
        ...

    async def collection(self, name: str, work: Work) -> CollectionInfo:
        """Return one collection with its counts."""
        ...

    async def drop(self, name: str, work: Work) -> None:
        """Delete a collection and its files."""
        ...

    async def upsert(self, collection: str, points: Sequence[Point], work: Work) -> None:
        """Write points, replacing those of the same place; durable against ``kill -9`` on return."""
        ...

    async def trim(self, collection: str, document: str, chunks: int, work: Work) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        ...

    async def seal(self, collection: str, head: Head, work: Work) -> None:
        """Set the head's hash and chunk count: the document is complete.

        Raises:
            Unavailable: The document was deleted while it was being written (``write_conflict``).
        """
        ...

    async def delete(self, collection: str, filter: Filter, work: Work) -> int:
        """Delete every chunk of the documents that match; return the number of documents."""
        ...

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, work: Work) -> Retrieved:
        """Answer a search: both arms, fused, rescored, read, by the one course of :mod:`penstock.ranking.course`.

        Nothing is asked of an arm whose vector is not given. An arm or a rescoring that fails is left out and named;
        of a chunk deleted meanwhile there is no hit.

        Raises:
            PenstockError: No arm could answer, or the hits could not be read.
        """
        ...

    async def search(self, collection: str, query: ArmQuery, work: Work) -> list[Scored]:
        """Return the best points of one arm, best first."""
        ...

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], work: Work) -> list[list[Scored]]:
        """Answer several queries in one round trip, as :meth:`search` answers each; none: no trip."""
        ...

    async def tokens(self, collection: str, points: Sequence[str], work: Work) -> Mapping[str, TokenVectors]:
        """Return the token vectors, ``int8 [rows, late]``, of the points that (still) exist and have some, by id."""
        ...

    async def fetch(self, collection: str, points: Sequence[str], work: Work) -> Mapping[str, ChunkPayload]:
        """Return the payloads of the points that (still) exist, by id."""
        ...

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, work: Work) -> HeadPage:
        """Return a page of document heads, in an order that does not change between pages."""
        ...

    async def find(self, collection: str, documents: Sequence[str], work: Work) -> dict[str, Head]:
        """Return the heads of those of the documents that exist."""
        ...


@dataclass(frozen=True, slots=True)
class PointPage:
    """A page of whole points and where the next one starts (``None``: this was the last)."""

    points: list[Point]
    next: str | None


class MovableStore(VectorStore, Protocol):
    """A store whose points can be read whole, so that they can be moved to another."""

    async def points(self, collection: str, after: str | None, limit: int, work: Work) -> PointPage:
        """Return a page of points with all their vectors, in the order of their ids.

        Args:
            collection: Its name.
            after: The first id wanted, or the one where it would be; ``None`` for the first of all.
            limit: Points at most.
            work: Deadline and label.
        """
        ...


class Upkeep(msgspec.Struct, frozen=True):
    """How a collection's upkeep stands: the making of generations in which its points are indexed.

    Attributes:
        collection: Its name.
        stage: ``copying``, ``optimising`` or ``replaying``; empty while none is made.
        made: Generations made since the store began.
        given_up: Those that could not be made.
        reason: Why the last attempt was given up; empty once one has been made.
    """

    collection: str
    stage: str = ""
    made: int = 0
    given_up: int = 0
    reason: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot that has been made.

    Attributes:
        name: Its file in the directory ``snapshots`` of the data directory.
        bytes: The file's size.
        made_at: When, RFC 3339 in UTC.
        collections: The names of what it holds.
    """

    name: str
    bytes: int
    made_at: str
    collections: list[str]


class Snapshots(Protocol):
    """Snapshots of every collection of a store."""

    async def make(self, work: Work) -> Snapshot:
        """Make a snapshot; each collection is as it was at one moment.

        Cancellation: No file is left behind that could be taken for a snapshot.
        """
        ...

    async def restore(self, name: str, layout: CollectionInfo, work: Work, *, force: bool) -> list[CollectionInfo]:
        """Take in what a snapshot holds, each collection whole or not at all.

        Args:
            name: Its file's name.
            layout: Whose vectors they must be: the server's model and dimension.
            work: Deadline and label.
            force: Whether collections that are there may be replaced.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``), it is not whole (``snapshot_damaged``),
                another model made it (``collection_conflict``), or something is in its place (``collection_exists``).
        """
        ...


class NoSnapshots:
    """The ``Snapshots`` of a store that makes none."""

    async def make(self, _work: Work) -> Snapshot:
        """Refuse."""
        raise _unsupported()

    async def restore(self, _name: str, _layout: CollectionInfo, _work: Work, *, force: bool) -> list[CollectionInfo]:  # noqa: ARG002
        """Refuse."""
        raise _unsupported()


def _unsupported() -> Invalid:
    return Invalid("this store makes no snapshots", field="snapshot")
