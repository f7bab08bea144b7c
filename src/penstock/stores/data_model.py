"""Data model of vector stores: filter conditions, points, collections, queries and results."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from penstock.kernel.errors import PenstockError
from penstock.kernel.late_interaction import TokenVectors
from penstock.kernel.vectors import SparseVector
from penstock.ranking.retrieval import StageRank

#: A collection's name, as a regular expression over all of it.
COLLECTION_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"

#: Characters of a document's id at most.
ID_CHARACTERS_MAX: Final = 4096

Scalar = str | int | float | bool

#: States of a collection.
STATE_OPEN: Final = "open"
STATE_CLOSED: Final = "closed"
STATE_DAMAGED: Final = "damaged"

#: Versions of the text that BM25 reads. The first is as the engine cuts it into words. The second is folded
#: (:mod:`penstock.models.text_folding`), so that scripts without spaces have words and accents need not be typed.
TEXT_PLAIN: Final = 1
TEXT_FOLDED: Final = 2

#: The version of a collection that is being renewed: some of its points are of each, and new ones of the second.
TEXT_RENEWING: Final = 0

#: Integers that every store keeps exactly: what fits into 64 bits, with a sign or without one.
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1


def out_of_range_reason(value: object) -> str | None:
    """Return why a number cannot be kept exactly by every store; ``None`` for any other value."""
    if type(value) is int and not INTEGER_MIN <= value <= INTEGER_MAX:
        return "an integer must fit into 64 bits (-2^63 to 2^64-1); write a larger one as a string"
    if type(value) is float and not math.isfinite(value):
        return "a number must be finite"
    return None


class Match(msgspec.Struct, frozen=True, tag="match"):
    """The field equals one of the values."""

    key: str
    values: list[Scalar]


class Except(msgspec.Struct, frozen=True, tag="except"):
    """The field, a string that every point has, equals none of the values."""

    key: str
    values: list[str]


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


Condition = Match | Except | Prefix | Range

#: Conditions that must all hold; empty matches everything.
Filter = tuple[Condition, ...]


class ChunkPayload(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of a point: the chunk's text, its place in the source and its document's metadata.

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
        source: Name of the source that the document belongs to; empty for none.
        pending: Content hash of the document, while the chunk has no dense vector yet: it is found by words only.
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
    source: str = ""
    pending: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk with its vectors, ready to be stored.

    Attributes:
        payload: The chunk's payload; its ``id`` and ``chunk`` give the point's id.
        dense: ``float32 [dim]``, L2-normalised; ``None`` while the payload says that it is pending.
        sparse: Sparse vector of the chunk's sparse text.
        token_vectors: Token vectors, ``int8 [rows, token_dim]``, at least one; a collection that keeps none
            ignores them.
    """

    payload: ChunkPayload
    dense: NDArray[np.float32] | None
    sparse: SparseVector
    token_vectors: TokenVectors | None = None


@dataclass(frozen=True, slots=True)
class SparseReplacement:
    """A point's new sparse vector.

    Attributes:
        document_id: The point's document.
        chunk: Number of the chunk in it.
        sparse: The vector.
    """

    document_id: str
    chunk: int
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """Vectors of a chunk that had none.

    Attributes:
        document_id: The chunk's document.
        chunk: Its number in the document.
        pending: What its payload said when its text was read, so that another text does not get its vectors.
        dense: As in :class:`Point`.
        token_vectors: As in :class:`Point`.
    """

    document_id: str
    chunk: int
    pending: str
    dense: NDArray[np.float32]
    token_vectors: TokenVectors | None = None


class PendingChunk(msgspec.Struct, frozen=True, array_like=True):
    """A chunk without a dense vector.

    Attributes:
        document_id: The chunk's document.
        chunk: Its number in the document.
        path: The document's path.
        language: Its language.
    """

    document_id: str
    chunk: int
    path: str
    language: str


class PendingPage(msgspec.Struct, frozen=True):
    """A page of chunks without a dense vector. ``next`` is the ``after`` of the next page, null on the last one."""

    chunks: list[PendingChunk]
    next: str | None


class DocumentInfo(msgspec.Struct, frozen=True):
    """A document's id, hash, chunk count, path and source, as recorded with its first chunk.

    Attributes:
        id: The document's id.
        hash: Content hash; empty when the document was not completely written.
        chunks: How many chunks it has.
        path: Its path, may be empty.
        source: Name of the source that it belongs to; empty for none.
    """

    id: str
    hash: str
    chunks: int
    path: str = ""
    source: str = ""


class DocumentPage(msgspec.Struct, frozen=True):
    """A page of documents. ``next`` is the ``after`` of the next page, null on the last one."""

    documents: list[DocumentInfo]
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
        disk_bytes: Bytes that its files take up on the disk.
        indexed: Points that its generation has indexed; later ones are compared one by one.
        shards: Over how many store processes it is spread; fixed when it is made.
        sparse: Name of the model of its sparse vectors, where that model has learned the term weights; empty for
            BM25, whose vectors are weighted by how rare a term is in the collection.
        upkeep: Stage of its index build: ``copying``, ``optimising`` or ``replaying``; empty if none runs.
        token_dim: Components of its token vectors; 0 for a collection that keeps none, because it was made before there
            were any, or by a model that gives none: its hits are ranked without late interaction.
        state: ``open``, ``closed`` (its next use opens it) or ``damaged`` (it cannot be opened).
        reason: Why it is damaged; empty otherwise.
        renewing: Whether a renewal of its BM25 vectors to the newest version has begun and not ended.
        text: Version of the text of which its BM25 vectors are made: 1 for a collection that was made before there was
            another, 2 for one that is searchable by words in every script. Its queries are prepared the same way.
        pending: Points without a dense vector. They are found by words, and by meaning once they have one.
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
    token_dim: int = msgspec.field(default=0, name="late")
    sparse: str = ""
    state: Annotated[str, Meta(extra_json_schema={"enum": [STATE_OPEN, STATE_CLOSED, STATE_DAMAGED]})] = STATE_OPEN
    reason: str = ""
    text: int = TEXT_PLAIN
    renewing: bool = False
    pending: int = 0

    @property
    def text_version(self) -> int:
        """The version by which queries and documents are prepared."""
        return TEXT_RENEWING if self.renewing else self.text


if TYPE_CHECKING:
    ArmVector: TypeAlias = NDArray[np.float32] | SparseVector
else:

    class ArmVector(ABC):  # noqa: B024 - registers what exists
        """A dense or a sparse vector: a hook decodes it, for msgspec knows no union of an array and a record."""

    ArmVector.register(np.ndarray)
    ArmVector.register(SparseVector)


@dataclass(frozen=True, slots=True)
class ArmQuery:
    """Query of a single arm, or of exact scores for known candidates.

    Attributes:
        vector: Dense ``float32 [dim]``, or a sparse vector; its type chooses the arm.
        limit: Hits wanted.
        filter: Conditions that hits must meet.
        among: Only these points, where given; for exact scores of known candidates.
    """

    vector: ArmVector
    limit: int
    filter: Filter = ()
    among: Sequence[str] | None = field(default=None)


class RetrievedHit(msgspec.Struct, frozen=True, array_like=True):
    """A hit.

    Attributes:
        point: Its id.
        score: The last stage's; comparable within one answer only.
        payload: The chunk's payload.
        stage_ranks: Rank and score in every stage, if explanations were requested.
    """

    point: str
    score: float
    payload: ChunkPayload
    stage_ranks: dict[str, StageRank]


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """Result of a retrieval: hits, failures and times.

    Attributes:
        hits: Best first.
        failures: Errors of the parts that were left out, by arm or ``rerank``.
        stages: Milliseconds by stage (:func:`penstock.ranking.program.stage_of`); searches that are answered together
            share them.
        truncated: Whether the last hits were left out because the answer reached its size limit
            (:mod:`penstock.stores.program_runner`).
    """

    hits: list[RetrievedHit]
    failures: Mapping[str, PenstockError]
    stages: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PointPage:
    """A page of whole points and where the next one starts (``None``: this was the last)."""

    points: list[Point]
    next: str | None


class IndexBuildStatus(msgspec.Struct, frozen=True):
    """Status of a collection's index builds, which make generations in which its points are indexed.

    Attributes:
        collection: Its name.
        stage: ``copying``, ``optimising`` or ``replaying``; empty while no build runs.
        made: Builds completed since the store started.
        given_up: Builds aborted since then.
        reason: Why the last build was aborted; empty once one has been completed.
    """

    collection: str
    stage: str = ""
    made: int = 0
    given_up: int = 0
    reason: str = ""


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot that has been made.

    Attributes:
        name: Its file in the directory ``snapshots`` of the data directory.
        bytes: The file's size.
        made_at: When, RFC 3339 in UTC.
        collections: The names of its collections.
        reason: Why it cannot be restored, as far as its header shows; otherwise empty.
        left_out: The names of damaged collections that it does not hold; given only when it is made.
    """

    name: str
    bytes: int
    made_at: str
    collections: list[str]
    reason: str = ""
    left_out: list[str] = []
