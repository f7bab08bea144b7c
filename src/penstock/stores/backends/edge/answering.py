"""What each command does, and the frames that answer it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.engine import Panicked
from penstock.stores.backends.edge.shelf import Shelf

log = logging.getLogger(__name__)


def run_command(shelf: Shelf, command: wire.Command) -> Any:
    """Do what one command says and return its result."""
    return _COMMANDS[type(command)](shelf, command)


def _update(shelf: Shelf, command: Any) -> Any:
    return shelf.update(command)


_COMMANDS: Final[dict[type, Callable[[Shelf, Any], Any]]] = {
    wire.Create: lambda shelf, c: shelf.create(c.info),
    wire.ListCollections: lambda shelf, _: shelf.describe_all(),
    wire.Describe: lambda shelf, c: shelf.describe(c.collection),
    wire.Drop: lambda shelf, c: shelf.drop(c.collection),
    wire.Upsert: _update,
    wire.Trim: _update,
    wire.Seal: _update,
    wire.Delete: _update,
    wire.Fetch: lambda shelf, c: shelf.shard(c.collection).fetch(c.points),
    wire.Heads: lambda shelf, c: shelf.shard(c.collection).heads(c.filter, c.after, c.limit),
    wire.Find: lambda shelf, c: shelf.shard(c.collection).find(c.documents),
    wire.Search: lambda shelf, c: shelf.shard(c.collection).search([c])[0],
    wire.Vectors: lambda shelf, c: shelf.shard(c.collection).vectors(c.points),
    wire.SearchAll: lambda shelf, c: shelf.shard(c.collection).search(c.searches),
    wire.Adopt: lambda shelf, c: shelf.adopt(Path(c.source), force=c.force),
    wire.Optimize: lambda shelf, c: shelf.collection(c.collection).begin(),
    wire.Close: lambda shelf, _: shelf.close(),
}


def batches(requests: Iterable[wire.Request]) -> list[list[wire.Request]]:
    """Return reads as they are given to the engine: the searches of each collection together, the others alone."""
    searches: dict[str, list[wire.Request]] = {}
    found: list[list[wire.Request]] = []
    for request in requests:
        if not isinstance(request.command, wire.Search | wire.SearchAll):
            found.append([request])
        elif request.command.collection in searches:
            searches[request.command.collection].append(request)
        else:
            batch = searches[request.command.collection] = [request]
            found.append(batch)
    return found


def answer(shelf: Shelf, batch: list[wire.Request]) -> Iterator[bytes]:
    """Work one of :func:`batches` and yield the reply frames."""
    if len(batch) > 1:
        yield from _search_together(shelf, batch)
    else:
        yield from (outcome(shelf, request) for request in batch)


def _search_together(shelf: Shelf, requests: list[wire.Request]) -> Iterator[bytes]:
    commands: list[Any] = [request.command for request in requests]
    every = [search for command in commands for search in _searches(command)]
    try:
        found = iter(shelf.shard(commands[0].collection).search(every))
    except PenstockError:
        # One bad query spoils a batch: find out which by asking one by one.
        yield from (outcome(shelf, request) for request in requests)
        return
    for request, command in zip(requests, commands, strict=True):
        hits = list(islice(found, len(_searches(command))))
        yield success(request.number, hits if isinstance(command, wire.SearchAll) else hits[0])


def _searches(command: wire.Search | wire.SearchAll) -> list[wire.Search]:
    return command.searches if isinstance(command, wire.SearchAll) else [command]


def outcome(shelf: Shelf, request: wire.Request) -> bytes:
    """Do what a request says and return the frame of its reply."""
    try:
        return success(request.number, run_command(shelf, request.command))
    except Exception as error:  # noqa: BLE001 - the root of a request: whatever it is, its requester is told
        shelf.panicked |= isinstance(error, Panicked)
        return failure(request.number, error)


def success(number: int, result: object) -> bytes:
    """Return the frame of a reply that carries a result."""
    return wire.frame(wire.Reply(number, None, msgspec.Raw(msgspec.msgpack.encode(result))))


def failure(number: int, error: Exception) -> bytes:
    """Return the frame of a reply that carries an error; what is not ours is logged."""
    if not isinstance(error, PenstockError):
        error = _translated(error)
    field = error.field if isinstance(error, Invalid) else ""
    told = wire.Failure(type(error).__name__, error.code, error.detail, field)
    return wire.frame(wire.Reply(number, told, msgspec.Raw(msgspec.msgpack.encode(None))))


def _translated(error: Exception) -> PenstockError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Unavailable("the disk of the data directory is full", dependency="store", code="disk_full")
    log.error("a command failed", exc_info=error)
    return Broken("the store failed; the log has the details", code="store_failed")
