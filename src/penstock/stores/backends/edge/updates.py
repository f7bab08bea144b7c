"""What each command that changes points does to a shard; the same when it comes and when it is replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.engine import Shard

Update = wire.Upsert | wire.Trim | wire.Seal | wire.Delete

_UPDATES: Final[dict[type, Callable[[Shard, Any], Any]]] = {
    wire.Upsert: lambda shard, c: shard.upsert(c.points),
    wire.Trim: lambda shard, c: shard.trim(c.document, c.chunks),
    wire.Seal: lambda shard, c: shard.seal(c.head),
    wire.Delete: lambda shard, c: shard.delete(c.filter),
}

#: Updates that take room on the disk; the others are let through when it is full.
GROWING: Final = (wire.Upsert, wire.Seal)


def apply(shard: Shard, command: Update) -> Any:
    """Do what the command says and return its result."""
    return _UPDATES[type(command)](shard, command)


def without_tokens(command: Update) -> Update:
    """Return the command as a collection does it that keeps no token vectors."""
    if not isinstance(command, wire.Upsert):
        return command
    return msgspec.structs.replace(command, points=[msgspec.structs.replace(p, late=None) for p in command.points])


def weight(command: Update) -> int:
    """Return about how many points the command touches; a filter counts as one."""
    return len(command.points) if isinstance(command, wire.Upsert) else 1
