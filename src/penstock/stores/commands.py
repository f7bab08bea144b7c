"""Operations of a vector store, each a record of its arguments that names its result.

A store executes a command by its type (:class:`penstock.stores.contract.VectorStore`). The embedded store sends the
same record to its process. A new operation is one record here and one handler in each store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args

import msgspec

from penstock.kernel.late_interaction import TokenVectors
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
from penstock.stores.data_model import (
    ArmQuery,
    ChunkPayload,
    ChunkVectors,
    CollectionInfo,
    DocumentInfo,
    DocumentPage,
    Filter,
    PendingPage,
    Point,
    PointPage,
    RetrievalResult,
    SparseReplacement,
)
from penstock.stores.sources import SourceRecord

R_co = TypeVar("R_co", covariant=True)


def _operation_name(class_name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in class_name).removeprefix("_")


class StoreCommand(msgspec.Struct, Generic[R_co], frozen=True, tag=_operation_name):
    """An operation with its arguments; the type parameter is its result.

    Attributes:
        operation: The operation's name, such as ``upsert_points``.
        idempotent: Whether doing it twice does no harm and has the same result.
        writes: Whether it changes something; writes are done one by one, in the order in which they came.
        removes: Whether it may remove points, so that remembered answers are no longer true.
        checks_layout: Whether it needs vectors that the server's own models have made.
    """

    operation: ClassVar[str]
    idempotent: ClassVar[bool] = True
    writes: ClassVar[bool] = False
    removes: ClassVar[bool] = False
    checks_layout: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        cls.operation = _operation_name(cls.__name__)

    @classmethod
    def result_type(cls) -> Any:
        """Return the type of the command's result."""
        return get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]


class CollectionCommand(StoreCommand[R_co], frozen=True):
    """An operation on one collection."""

    collection: str


class CreateCollection(StoreCommand[CollectionInfo], frozen=True):
    """Create a collection, or return the one that is there with the same layout.

    Raises:
        Invalid: One of that name exists with another dimension or model (``collection_conflict``), or the name is not
            allowed.
    """

    writes = True
    info: CollectionInfo


class ListCollections(StoreCommand[list[CollectionInfo]], frozen=True):
    """Return every collection, by name."""


class DescribeCollection(CollectionCommand[CollectionInfo], frozen=True):
    """Return one collection with its counts."""


class DropCollection(CollectionCommand[None], frozen=True):
    """Delete a collection and its files."""

    writes = removes = True
    idempotent = False


class UpsertPoints(CollectionCommand[None], frozen=True):
    """Write points, replacing those with the same id; durable against ``kill -9`` on return."""

    writes = checks_layout = True
    points: Sequence[Point]


class ReplaceSparse(CollectionCommand[None], frozen=True):
    """Replace the sparse vectors of those of the points that exist; everything else of them stays."""

    writes = checks_layout = True
    points: Sequence[SparseReplacement]


class AddVectors(CollectionCommand[None], frozen=True):
    """Give chunks the vectors that they lack; one that has changed or gone since its text was read is left alone."""

    writes = checks_layout = True
    vectors: Sequence[ChunkVectors]


class SetTextVersion(CollectionCommand[None], frozen=True):
    """Record the version of a collection's text; updates that came before it have been applied on return."""

    writes = True
    text: int
    renewing: bool


class TrimDocument(CollectionCommand[None], frozen=True):
    """Delete the document's chunks numbered ``chunks`` and above."""

    writes = True
    document_id: str
    chunks: int


class SealDocument(CollectionCommand[None], frozen=True):
    """Set the head's hash and chunk count: the document is complete.

    Raises:
        Unavailable: The document was deleted while it was being written (``write_conflict``).
    """

    writes = True
    document: DocumentInfo


class DeleteDocuments(CollectionCommand[int], frozen=True):
    """Delete every chunk of the documents that match; return the number of documents."""

    writes = removes = True
    idempotent = False
    filter: Filter


class Retrieve(CollectionCommand[RetrievalResult], frozen=True):
    """Answer a search: both arms, fused, rescored, read, by the program of :mod:`penstock.ranking.program`.

    An arm without a vector is not searched. An arm or a rescoring that fails is left out and named in the result.
    A chunk that is deleted during the search gives no hit.

    Raises:
        PenstockError: No arm could answer, or the hits could not be read.
    """

    checks_layout = True
    query: RetrievalQuery
    filter: Filter = ()


class SearchBatch(CollectionCommand[list[list[ScoredPoint]]], frozen=True):
    """Return the best points of one arm, best first, for each query."""

    checks_layout = True
    queries: Sequence[ArmQuery]


class FetchTokenVectors(CollectionCommand[Mapping[str, TokenVectors]], frozen=True):
    """Return the token vectors, ``int8 [rows, token_dim]``, of those points that exist and have some, by id."""

    checks_layout = True
    points: Sequence[str]


class FetchPayloads(CollectionCommand[Mapping[str, ChunkPayload]], frozen=True):
    """Return the payloads of the points that (still) exist, by id."""

    points: Sequence[str]


class ListDocuments(CollectionCommand[DocumentPage], frozen=True):
    """Return a page of document heads, in an order that does not change between pages."""

    filter: Filter
    after: str | None
    limit: int


class ListPending(CollectionCommand[PendingPage], frozen=True):
    """Return a page of the chunks without a dense vector, in an order that does not change between pages.

    Attributes:
        filter: Conditions that they must meet.
        after: ``next`` of the page before; ``None`` for the first.
        limit: Chunks at most.
    """

    filter: Filter
    after: str | None
    limit: int


class GetDocuments(CollectionCommand[dict[str, DocumentInfo]], frozen=True):
    """Return the heads of those of the documents that exist, by id."""

    document_ids: Sequence[str]


class CountDocuments(CollectionCommand[int], frozen=True):
    """Return how many documents match."""

    filter: Filter


class FetchPoints(CollectionCommand[list[Point]], frozen=True):
    """Return those of the points that exist, with all their vectors."""

    points: Sequence[str]


class ListSources(CollectionCommand[list[SourceRecord]], frozen=True):
    """Return the records of the collection's sources, by name."""


class PutSource(CollectionCommand[None], frozen=True):
    """Write the record of a source, replacing the one of its name; durable on return.

    Raises:
        Invalid: The collection has too many sources (``too_many_sources``).
    """

    writes = True
    source: SourceRecord


class DropSource(CollectionCommand[None], frozen=True):
    """Delete the record of a source, if there is one."""

    writes = True
    name: str


class ScrollPoints(CollectionCommand[PointPage], frozen=True):
    """Return a page of points with all their vectors, in the order of their ids.

    Attributes:
        after: The first id wanted, or the one where it would be; ``None`` for the first of all.
        limit: Points at most.
    """

    after: str | None
    limit: int
