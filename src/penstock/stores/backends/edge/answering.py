"""What each command does, and the frames that answer it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from penstock.kernel.errors import Broken, PenstockError, Unavailable
from penstock.stores.backends.edge import packing, wire
from penstock.stores.backends.edge.intake import is_large, subject
from penstock.stores.backends.edge.reader import number
from penstock.stores.backends.edge.retrieving import retrieve
from penstock.stores.backends.edge.shelf import Shelf

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Requests that the engine gets as one batch.
TOGETHER_MAX: Final = 8


def run_command(shelf: Shelf, command: wire.Command) -> Any:
    """Do what one command says and return its result."""
    return _COMMANDS[type(command)](shelf, command)


def _update(shelf: Shelf, command: Any) -> Any:
    return shelf.update(command)


def _by_name(points: Sequence[str], read: Callable[[Sequence[int]], dict[int, T]]) -> dict[str, T]:
    """Return what is read of points, by their ids as they travel."""
    names = {number(point): point for point in points}
    return {names[point]: found for point, found in read(list(names)).items()}


_COMMANDS: Final[dict[type, Callable[[Shelf, Any], Any]]] = {
    wire.Create: lambda shelf, c: shelf.create(c.info),
    wire.ListCollections: lambda shelf, _: shelf.describe_all(),
    wire.Describe: lambda shelf, c: shelf.describe(c.collection),
    wire.Drop: lambda shelf, c: shelf.drop(c.collection),
    wire.Upsert: _update,
    wire.Trim: _update,
    wire.Seal: _update,
    wire.Delete: _update,
    wire.Fetch: lambda shelf, c: _by_name(c.points, shelf.reader(c.collection).fetch),
    wire.Heads: lambda shelf, c: shelf.shard(c.collection).heads(c.filter, c.after, c.limit),
    wire.Find: lambda shelf, c: shelf.shard(c.collection).find(c.documents),
    wire.ReadPoints: lambda shelf, c: shelf.shard(c.collection).read_points(c.after, c.limit),
    wire.Tokens: lambda shelf, c: {
        point: packing.pack_late(vectors)
        for point, vectors in _by_name(c.points, shelf.reader(c.collection).tokens).items()
    },
    wire.SearchAll: lambda shelf, c: shelf.shard(c.collection).search(c.searches),
    wire.Adopt: lambda shelf, c: shelf.adopt(c.collection, Path(c.source), force=c.force),
    wire.Optimize: lambda shelf, c: shelf.collection(c.collection).begin(),
    wire.Shrink: lambda shelf, c: shelf.cache.shrink(c.share),
    wire.Ping: lambda _shelf, _command: None,
    wire.Close: lambda shelf, _: shelf.close(),
}


def batches(requests: Iterable[wire.Request]) -> list[list[wire.Request]]:
    """Return reads as they are given to the engine: those of a kind that it takes together, the others alone.

    Bounds: ``TOGETHER_MAX`` requests in a batch: each is answered when all of them are.
    """
    open_batches: dict[tuple[type, str], list[wire.Request]] = {}
    found: list[list[wire.Request]] = []
    for request in requests:
        command = request.command
        if not isinstance(command, wire.Retrieve | wire.SearchAll) or is_large(command):
            found.append([request])
            continue
        kind = (type(command), command.collection)
        batch = open_batches.get(kind)
        if batch is None or len(batch) == TOGETHER_MAX:
            batch = open_batches[kind] = []
            found.append(batch)
        batch.append(request)
    return found


def answer(shelf: Shelf, batch: list[wire.Request]) -> Iterator[bytes]:
    """Work one of :func:`batches` and yield the reply frames."""
    if isinstance(batch[0].command, wire.Retrieve):
        yield from _retrieve_together(shelf, batch)
    elif len(batch) > 1:
        yield from _search_together(shelf, batch)
    else:
        yield from (outcome(shelf, request) for request in batch)


def _retrieve_together(shelf: Shelf, requests: list[wire.Request]) -> Iterator[bytes]:
    commands: list[Any] = [request.command for request in requests]
    try:
        results = retrieve(shelf.reader(commands[0].collection), commands)
    except Exception as error:  # noqa: BLE001 - the root of these requests: whatever it is, their requesters are told
        told = shelf.note_error(commands[0].collection, error)
        yield from (failure(request.number, told) for request in requests)
        return
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, PenstockError):
            yield failure(request.number, shelf.note_error(subject(request.command), result))
        else:
            yield success(request.number, result)


def _search_together(shelf: Shelf, requests: list[wire.Request]) -> Iterator[bytes]:
    commands: list[Any] = [request.command for request in requests]
    try:
        found = iter(shelf.shard(commands[0].collection).search([s for one in commands for s in one.searches]))
    except PenstockError:
        # One bad query spoils a batch: find out which by asking one by one.
        yield from (outcome(shelf, request) for request in requests)
        return
    for request, command in zip(requests, commands, strict=True):
        yield success(request.number, list(islice(found, len(command.searches))))


def outcome(shelf: Shelf, request: wire.Request) -> bytes:
    """Do what a request says and return the frame of its reply."""
    try:
        return success(request.number, run_command(shelf, request.command))
    except Exception as error:  # noqa: BLE001 - the root of a request: whatever it is, its requester is told
        return failure(request.number, shelf.note_error(subject(request.command), error))


def success(number: int, result: object) -> bytes:
    """Return the frame of a reply that carries a result."""
    return wire.frame(wire.Reply(number, None, msgspec.Raw(msgspec.msgpack.encode(result))))


def failure(number: int, error: Exception) -> bytes:
    """Return the frame of a reply that carries an error; what is not ours is logged."""
    if not isinstance(error, PenstockError):
        error = _translated(error)
    return wire.frame(wire.Reply(number, wire.failure_of(error), msgspec.Raw(msgspec.msgpack.encode(None))))


#: What the operating system says of the whole disk.
_DISK: Final = {
    errno.ENOSPC: ("disk_full", "full"),
    errno.EDQUOT: ("disk_full", "full for this user"),
    errno.EROFS: ("disk_read_only", "read-only"),
}


def _translated(error: Exception) -> PenstockError:
    if isinstance(error, OSError) and error.errno in _DISK:
        code, state = _DISK[error.errno]
        return Unavailable(f"the disk of the data directory is {state}", dependency="store", code=code)
    log.error("a command failed", exc_info=error)
    # No code of the store's: it is a bug that one request has found, and the store serves the others.
    return Broken("the store failed over a request; the log has the details")
