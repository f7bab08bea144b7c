"""The vector store as the rest of the house sees it.

A collection holds points; a point is one chunk of one document, with a dense vector, a sparse vector, token vectors
where the collection keeps them, and a payload. The point of chunk 0 is the document's *head*: it carries the document's
hash and chunk count, and it is written (or sealed) last, so that a head with a hash means that the whole document is
there. There is no second catalogue that could disagree with the points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid
from penstock.kernel.late import TokenVectors
from penstock.ranking.records import Retrieval, Scored
from penstock.stores.records import (
    ArmQuery,
    ChunkPayload,
    CollectionInfo,
    Filter,
    Head,
    HeadPage,
    Point,
    PointPage,
    Retrieved,
    Snapshot,
)


class VectorStore(Protocol):
    """Collections of points.

    Every method raises ``Invalid`` (code ``collection_not_found``) for an unknown collection,
    ``Expired`` at the work's deadline and ``Unavailable`` when the store cannot answer.

    Cancellation: a cancelled read leaves nothing behind; a cancelled write may or may not have
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
        """Write points, replacing those of the same place; durable against ``kill -9`` on return."""
        ...

    async def trim(self, collection: str, document: str, chunks: int, ctx: Context) -> None:
        """Delete the document's chunks numbered ``chunks`` and above."""
        ...

    async def seal(self, collection: str, head: Head, ctx: Context) -> None:
        """Set the head's hash and chunk count: the document is complete.

        Raises:
            Unavailable: The document was deleted while it was being written (``write_conflict``).
        """
        ...

    async def delete(self, collection: str, filter: Filter, ctx: Context) -> int:
        """Delete every chunk of the documents that match; return the number of documents."""
        ...

    async def retrieve(self, collection: str, wanted: Retrieval, filter: Filter, ctx: Context) -> Retrieved:
        """Answer a search: both arms, fused, rescored, read, by the one course of :mod:`penstock.ranking.course`.

        Nothing is asked of an arm whose vector is not given. An arm or a rescoring that fails is left out and named;
        of a chunk deleted meanwhile there is no hit.

        Raises:
            PenstockError: No arm could answer, or the hits could not be read.
        """
        ...

    async def search(self, collection: str, query: ArmQuery, ctx: Context) -> list[Scored]:
        """Return the best points of one arm, best first."""
        ...

    async def search_all(self, collection: str, queries: Sequence[ArmQuery], ctx: Context) -> list[list[Scored]]:
        """Answer several queries in one round trip, as :meth:`search` answers each; none: no trip."""
        ...

    async def tokens(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, TokenVectors]:
        """Return the token vectors, ``int8 [rows, late]``, of the points that (still) exist and have some, by id."""
        ...

    async def fetch(self, collection: str, points: Sequence[str], ctx: Context) -> Mapping[str, ChunkPayload]:
        """Return the payloads of the points that (still) exist, by id."""
        ...

    async def heads(self, collection: str, filter: Filter, after: str | None, limit: int, ctx: Context) -> HeadPage:
        """Return a page of document heads, in an order that does not change between pages."""
        ...

    async def find(self, collection: str, documents: Sequence[str], ctx: Context) -> dict[str, Head]:
        """Return the heads of those of the documents that exist."""
        ...


class MovableStore(VectorStore, Protocol):
    """A store whose points can be read whole, so that they can be moved to another."""

    async def points(self, collection: str, after: str | None, limit: int, ctx: Context) -> PointPage:
        """Return a page of points with all their vectors, in the order of their ids.

        Args:
            collection: Its name.
            after: The first id wanted, or the one where it would be; ``None`` for the first of all.
            limit: Points at most.
            ctx: Deadline and label.
        """
        ...


#: Hears the name of a collection that a restore has put in its place.
Restored = Callable[[str], object]


def unheard(_collection: str) -> None:
    """Hear of a restored collection and do nothing."""


class Snapshots(Protocol):
    """Snapshots of every collection of a store."""

    async def make(self, ctx: Context) -> Snapshot:
        """Make a snapshot; each collection is as it was at one moment.

        The oldest that the store has made itself are removed, beyond those that it keeps.

        Raises:
            Rejected: Another one is being made or restored (``snapshot_busy``).
            Unavailable: There is no room for it (``disk_full``).

        Cancellation: No file is left behind that could be taken for a snapshot.
        """
        ...

    async def restore(
        self, name: str, layout: CollectionInfo, ctx: Context, *, force: bool, restored: Restored = unheard
    ) -> list[CollectionInfo]:
        """Take in what a snapshot holds: all of it, or nothing has changed and it can be tried again.

        Args:
            name: Its file's name.
            layout: Whose vectors they must be: the server's models and dimensions.
            ctx: Deadline and label.
            force: Whether collections that are there may be replaced.
            restored: Called for each collection in its place, though nobody may be waiting for the rest any more.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``), it is not whole (``snapshot_damaged``),
                another model made it (``collection_conflict``), or something is in its place (``collection_exists``).
            Rejected: Another one is being made or restored (``snapshot_busy``).
            Unavailable: There is no room for it (``disk_full``).

        Cancellation: Nothing has changed, unless all of it was already checked and about to take its place.
        """
        ...

    async def kept(self) -> list[Snapshot]:
        """Return the snapshots that are there, by name."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a snapshot.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``).
        """
        ...


class NoSnapshots:
    """The ``Snapshots`` of a store that makes none."""

    async def make(self, _ctx: Context) -> Snapshot:
        """Refuse."""
        raise _unsupported()

    async def restore(
        self,
        _name: str,
        _layout: CollectionInfo,
        _ctx: Context,
        *,
        force: bool,  # noqa: ARG002
        restored: Restored = unheard,  # noqa: ARG002
    ) -> list[CollectionInfo]:
        """Refuse."""
        raise _unsupported()

    async def kept(self) -> list[Snapshot]:
        """Return none."""
        return []

    async def delete(self, name: str) -> None:
        """Refuse: there is none of that name."""
        raise Invalid(f"there is no snapshot {name!r}", field="snapshot", code="snapshot_not_found")


def _unsupported() -> Invalid:
    return Invalid("this store makes no snapshots", field="snapshot")
