"""Application of update commands to a shard, the same on arrival and on replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import msgspec

from penstock.stores.backends.edge.engine import Shard
from penstock.stores.commands import DeleteDocuments, SealDocument, TrimDocument, UpsertPoints

Update = UpsertPoints | TrimDocument | SealDocument | DeleteDocuments

_UPDATES: Final[dict[type, Callable[[Shard, Any], Any]]] = {
    UpsertPoints: lambda shard, c: shard.upsert(c.points),
    TrimDocument: lambda shard, c: shard.trim_document(c.document_id, c.chunks),
    SealDocument: lambda shard, c: shard.seal_document(c.document),
    DeleteDocuments: lambda shard, c: shard.delete(c.filter),
}

#: Updates that take space on the disk; the others are applied even when it is full.
SPACE_CONSUMING: Final = (UpsertPoints, SealDocument)


def apply_update(shard: Shard, command: Update) -> Any:
    """Apply the command and return its result."""
    return _UPDATES[type(command)](shard, command)


def without_token_vectors(command: Update) -> Update:
    """Return the command without token vectors, for a collection that keeps none."""
    if not isinstance(command, UpsertPoints):
        return command
    return msgspec.structs.replace(command, points=[dataclasses.replace(p, token_vectors=None) for p in command.points])


def points_touched(command: Update) -> int:
    """Return about how many points the command touches; a filter counts as one."""
    return len(command.points) if isinstance(command, UpsertPoints) else 1
