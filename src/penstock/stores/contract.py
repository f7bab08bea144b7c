"""Contract of the vector store: the protocols that every backend implements.

A collection holds points. A point is one chunk of one document, with a dense vector, a sparse vector, token vectors
where the collection keeps them, and a payload. The point of chunk 0 is the document's *head*: it carries the document's
hash and chunk count, and it is written (or sealed) last, so that a head with a hash means that the whole document is
there. There is no second catalogue that could disagree with the points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from penstock.kernel.context import Context
from penstock.kernel.errors import Invalid, Unavailable
from penstock.stores.commands import StoreCommand
from penstock.stores.data_model import STATE_DAMAGED, CollectionInfo, SnapshotInfo

R = TypeVar("R")

#: Codes of errors that say nothing about the store's health: everything else goes on.
OPERATOR_FIXABLE_CODES: Final = frozenset({"collection_damaged", "directory_gone", "disk_read_only"})


class CollectionDamaged(Unavailable):
    """A single collection cannot be opened; all others serve."""

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
    """Collections of points."""

    async def run(self, command: StoreCommand[R], ctx: Context) -> R:
        """Execute a command of :mod:`penstock.stores.commands` and return its result.

        Raises:
            Invalid: There is no such collection (code ``collection_not_found``).
            Expired: The deadline in ``ctx`` passed.
            Unavailable: The store cannot answer.
            PenstockError: What the command's own documentation names.

        Cancellation: A cancelled read leaves nothing behind. A cancelled write may or may not have happened, and
        repeating it is safe (point ids are derived).
        """


#: Called with the name of each collection that a restore has installed.
OnRestored = Callable[[str], object]


def ignore_restored(_collection: str) -> None:
    """Do nothing about a restored collection."""


class SnapshotStore:
    """Snapshots of every collection of a store; the base makes none, for a store that has its own."""

    async def create(self, ctx: Context) -> SnapshotInfo:  # noqa: ARG002 - for stores that make some
        """Make a snapshot; each collection is as it was at one moment.

        Of the snapshots that the store has made itself, the oldest beyond the number to keep are removed.

        Raises:
            Rejected: Another one is being made or restored (``snapshot_busy``).
            Unavailable: There is no room for it (``disk_full``).

        Cancellation: No file is left behind that could be taken for a snapshot.
        """
        raise _unsupported()

    async def restore(
        self,
        name: str,  # noqa: ARG002
        layout: CollectionInfo,  # noqa: ARG002
        ctx: Context,  # noqa: ARG002
        *,
        force: bool,  # noqa: ARG002
        on_restored: OnRestored = ignore_restored,  # noqa: ARG002
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
        raise _unsupported()

    async def list_snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots that are there, by name."""
        return []

    async def delete(self, name: str) -> None:
        """Delete a snapshot.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``).
        """
        raise Invalid(f"there is no snapshot {name!r}", field="snapshot", code="snapshot_not_found")


def _unsupported() -> Invalid:
    return Invalid("this store makes no snapshots", field="snapshot")
