"""Errors of a store that an operator mends: files or a directory that are not as they were left."""

from __future__ import annotations

from typing import Final

from penstock.kernel.errors import Unavailable
from penstock.stores.records import DAMAGED, CollectionInfo

#: Codes of errors that say nothing of the store's health: everything else goes on.
MENDED_BY_OPERATORS: Final = frozenset({"collection_damaged", "directory_gone", "disk_read_only"})


class CollectionDamaged(Unavailable):
    """One collection cannot be opened; all others serve.

    Args:
        name: The collection.
        reason: Why it cannot be opened.
    """

    code = "collection_damaged"
    retryable = False

    def __init__(self, name: str, reason: str) -> None:
        cure = "mend its files, restore it from a snapshot with force, or delete it"
        super().__init__(f"collection {name!r} is damaged: {reason}; {cure}", dependency="store")


class DirectoryGone(Unavailable):
    """Files that the server has open are not in the data directory any more."""

    code = "directory_gone"
    retryable = False


def check_usable(info: CollectionInfo) -> None:
    """Refuse a damaged collection.

    Raises:
        CollectionDamaged: It is one.
    """
    if info.state == DAMAGED:
        raise CollectionDamaged(info.name, info.reason)
