"""Contract of the vector store: the protocols that every backend implements.

A collection holds points. A point is one chunk of one document, with a dense vector, a sparse vector, token vectors
where the collection keeps them, and a payload. The point of chunk 0 is the document's *head*: it carries the document's
hash and chunk count, and it is written (or sealed) last, so that a head with a hash means that the whole document is
there. There is no second catalogue that could disagree with the points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid, Unavailable
from penstock.kernel.late_interaction import TokenVectors
from penstock.ranking.retrieval import RetrievalQuery, ScoredPoint
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
    SnapshotInfo,
)

#: Codes of errors that say nothing about the store's health: everything else goes on.
OPERATOR_FIXABLE_CODES: Final = frozenset({"collection_damaged", "directory_gone", "disk_read_only"})


class CollectionDamaged(Unavailable):
    """A single collection cannot be opened; all others serve.

    Args:
        name: The collection.
        reason: Why it cannot be opened.
    """

    code = "collection_damaged"
    retryable = False

    def __init__(self, name: str, reason: str) -> None:
        cure = "repair its files, restore it from a snapshot with force, or delete it"
        super().__init__(f"collection {name!r} is damaged: {reason}; {cure}", dependency="store")


class DirectoryGone(Unavailable):
    """Files that the server has open are not in the data directory any more."""

    code = "directory_gone"
    retryable = False


def check_usable(info: CollectionInfo) -> None:
    """Refuse a damaged collection.

    Raises:
        CollectionDamaged: It is damaged.
    """
    if info.state == STATE_DAMAGED:
        raise CollectionDamaged(info.name, info.reason)


class VectorStore(Protocol):
    """Collections of points.

    Every method raises ``Invalid`` (code ``collection_not_found``) for an unknown collection,
    ``Expired`` when the deadline in ``ctx`` passes, and ``Unavailable`` when the store cannot answer.

    Cancellation: a cancelled read leaves nothing behind. A cancelled write may or may not have
    happened, and repeating it is safe (point ids are derived).
    """

    async def create(self, info: CollectionInfo, ctx: Context) -> CollectionInfo:
        """Create a collection, or return the one that is there with the same layout.

        Raises:
            Invalid: One of that name exists with another dimension or model
                (``collection_conflict``), or the name is not allowed.
        """
        ...

    async def collections(self, ctx: Context) -> list[CollectionInfo]:
        """Return every collection, by name."""
        ...

    async def collection(self, name: str, ctx: Context) -> CollectionInfo:
        """Return one collection with its counts."""
        ...

    async def drop(self, name: str, ctx: Context) -> None:
        """Delete a collection and its files."""
        ...

    async def upsert(self, collection: str, points: Sequence[Point], ctx: Context) -> None:
        """Write points, replacing those with the same id; durable against ``kill -9`` on return."""
        ...

    async def trim_document(self, collection: str, document_id: str, chunks: int, ctx: Context) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        ...

    async def seal_document(self, collection: str, document: DocumentInfo, ctx: Context) -> None:
        """Set the head's hash and chunk count: the document is complete.

        Raises:
            Unavailable: The document was deleted while it was being written (``write_conflict``).
        """
        ...

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete every chunk of the documents that match; return the number of documents."""
        ...

    async def retrieve(self, collection: str, query: RetrievalQuery, filter: Filter, ctx: Context) -> RetrievalResult:
        """Answer a search: both arms, fused, rescored, read, by the program of :mod:`penstock.ranking.program`.

        An arm without a vector is not searched. An arm or a rescoring that fails is left out and named in the result.
        A chunk that is deleted during the search gives no hit.

        Raises:
            PenstockError: No arm could answer, or the hits could not be read.
        """
        ...

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[ScoredPoint]:
        """Return the best points of one arm, best first."""
        ...

    async def search_batch(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[ScoredPoint]]:
        """Answer several queries in one round trip, each as :meth:`search` does; without a query there is no trip."""
        ...

    async def fetch_token_vectors(
        self, collection: str, points: Sequence[str], ctx: Context
    ) -> Mapping[str, TokenVectors]:
        """Return the token vectors, ``int8 [rows, token_dim]``, of those points that exist and have some, by id."""
        ...

    async def fetch_payloads(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Return the payloads of the points that (still) exist, by id."""
        ...

    async def list_documents(
        self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context
    ) -> DocumentInfoPage:
        """Return a page of document heads, in an order that does not change between pages."""
        ...

    async def get_documents(
        self, collection: str, document_ids: Sequence[str], ctx: Context
    ) -> dict[str, DocumentInfo]:
        """Return the heads of those of the documents that exist."""
        ...


class MovableStore(VectorStore, Protocol):
    """A store whose points can be read whole, so that they can be moved to another."""

    async def scroll_points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Return a page of points with all their vectors, in the order of their ids.

        Args:
            collection: Its name.
            after: The first id wanted, or the one where it would be; ``None`` for the first of all.
            limit: Points at most.
            ctx: Request context, with the deadline.
        """
        ...


#: Called with the name of each collection that a restore has installed.
OnRestored = Callable[[str], object]


def ignore_restored(_collection: str) -> None:
    """Do nothing about a restored collection."""


class SnapshotStore(Protocol):
    """Snapshots of every collection of a store."""

    async def create(self, ctx: Context) -> SnapshotInfo:
        """Make a snapshot; each collection is as it was at one moment.

        Of the snapshots that the store has made itself, the oldest beyond the number to keep are removed.

        Raises:
            Rejected: Another one is being made or restored (``snapshot_busy``).
            Unavailable: There is no room for it (``disk_full``).

        Cancellation: No file is left behind that could be taken for a snapshot.
        """
        ...

    async def restore(
        self, name: str, layout: CollectionInfo, ctx: Context, *, force: bool, on_restored: OnRestored = ignore_restored
    ) -> list[CollectionInfo]:
        """Restore all collections of a snapshot; after an error nothing has changed, and it can be tried again.

        Args:
            name: Its file's name.
            layout: The server's models and dimensions, which those of the snapshot must equal.
            ctx: Request context, with the deadline.
            force: Whether collections that are there may be replaced.
            on_restored: Called for each installed collection, even if the caller no longer waits for the rest.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``), it is not whole (``snapshot_damaged``),
                another model made it (``collection_conflict``), or something is in its place (``collection_exists``).
            Rejected: Another one is being made or restored (``snapshot_busy``).
            Unavailable: There is no room for it (``disk_full``).

        Cancellation: Nothing has changed, unless all of it was already checked and committed.
        """
        ...

    async def list_snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that are there, by name."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a snapshot.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``).
        """
        ...


class UnsupportedSnapshots:
    """The ``SnapshotStore`` of a store that makes none."""

    async def create(self, _ctx: Context) -> SnapshotInfo:
        """Refuse."""
        raise _unsupported()

    async def restore(
        self,
        _name: str,
        _layout: CollectionInfo,
        _ctx: Context,
        *,
        force: bool,  # noqa: ARG002
        on_restored: OnRestored = ignore_restored,  # noqa: ARG002
    ) -> list[CollectionInfo]:
        """Refuse."""
        raise _unsupported()

    async def list_snapshots(self) -> list[SnapshotInfo]:
        """Return none."""
        return []

    async def delete(self, name: str) -> None:
        """Refuse: there is none of that name."""
        raise Invalid(f"there is no snapshot {name!r}", field="snapshot", code="snapshot_not_found")


def _unsupported() -> Invalid:
    return Invalid("this store makes no snapshots", field="snapshot")
