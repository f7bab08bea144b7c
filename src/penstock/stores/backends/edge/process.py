"""The store process: one thread, one socket, batches of whatever is waiting.

Run as ``python -m penstock.stores.backends.edge.process DIRECTORY FD``. It ends when the other side
closes the socket, so it never outlives the front that started it, however that one ended.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock.kernel.errors import Broken, Invalid, PenstockError, Unavailable
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.engine import Panicked
from penstock.stores.backends.edge.shelf import Shelf

log = logging.getLogger(__name__)

RECEIVE_BYTES: Final = 1 << 20

#: Requests taken into one round; more wait in the socket's buffer.
ROUND_REQUESTS_MAX: Final = 64

#: Exit status after the engine panicked; the front starts a new process.
PANIC_EXIT: Final = 70


def run_command(shelf: Shelf, command: wire.Command) -> Any:
    """Do what one command says and return its result."""
    run = _COMMANDS[type(command)]
    return run(shelf, command)


_COMMANDS: Final[dict[type, Callable[[Shelf, Any], Any]]] = {
    wire.Create: lambda shelf, c: shelf.create(c.info),
    wire.ListCollections: lambda shelf, _: shelf.describe_all(),
    wire.Describe: lambda shelf, c: shelf.describe(c.collection),
    wire.Drop: lambda shelf, c: shelf.drop(c.collection),
    wire.Upsert: lambda shelf, c: shelf.writable(c.collection).upsert(c.points),
    wire.Trim: lambda shelf, c: shelf.shard(c.collection).trim(c.document, c.chunks),
    wire.Seal: lambda shelf, c: shelf.writable(c.collection).seal(c.head),
    wire.Delete: lambda shelf, c: shelf.shard(c.collection).delete(c.filter),
    wire.Fetch: lambda shelf, c: shelf.shard(c.collection).fetch(c.points),
    wire.Heads: lambda shelf, c: shelf.shard(c.collection).heads(c.filter, c.after, c.limit),
    wire.Find: lambda shelf, c: shelf.shard(c.collection).find(c.documents),
    wire.Search: lambda shelf, c: shelf.shard(c.collection).search([c])[0],
    wire.Close: lambda shelf, _: shelf.close(),
}


def answer(shelf: Shelf, requests: list[wire.Request]) -> Iterator[bytes]:
    """Work a round in order and yield the reply frames.

    Neighbouring searches of one collection go to the engine as one batch; a write between two
    searches keeps its place, so a requester that waited for a write sees it.
    """
    for key, group in groupby(requests, _batch_key):
        members = [r for r in group if not _expired(r)]
        if key is None or len(members) < 2:
            for request in members:
                yield _outcome(request, shelf)
        else:
            yield from _search_together(shelf, key, members)


def _batch_key(request: wire.Request) -> str | None:
    """Return the collection whose batch a request may join, or ``None``."""
    return request.command.collection if isinstance(request.command, wire.Search) else None


def _expired(request: wire.Request) -> bool:
    """Whether its requester has given up: it was answered by its own deadline."""
    return request.expires_at_s is not None and time.monotonic() >= request.expires_at_s


def _search_together(shelf: Shelf, collection: str, requests: list[wire.Request]) -> Iterator[bytes]:
    searches = [r.command for r in requests if isinstance(r.command, wire.Search)]
    try:
        found = shelf.shard(collection).search(searches)
    except PenstockError:
        # One bad query spoils a batch: find out which by asking one by one.
        for request in requests:
            yield _outcome(request, shelf)
        return
    for request, hits in zip(requests, found, strict=True):
        yield _success(request.number, hits)


def _outcome(request: wire.Request, shelf: Shelf) -> bytes:
    try:
        return _success(request.number, run_command(shelf, request.command))
    except PenstockError as error:
        shelf.panicked |= isinstance(error, Panicked)
        return _failure(request.number, error)
    except Exception as error:  # the root of a request: whatever it is, its requester is told
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            full = Unavailable("the disk of the data directory is full", dependency="store", code="disk_full")
            return _failure(request.number, full)
        log.exception("a command failed")
        return _failure(request.number, Broken("the store failed; the log has the details", code="store_failed"))


def _success(number: int, result: object) -> bytes:
    return wire.frame(wire.Reply(number, None, msgspec.Raw(msgspec.msgpack.encode(result))))


def _failure(number: int, error: PenstockError) -> bytes:
    field = error.field if isinstance(error, Invalid) else ""
    failure = wire.Failure(type(error).__name__, error.code, error.detail, field)
    return wire.frame(wire.Reply(number, failure, msgspec.Raw(msgspec.msgpack.encode(None))))


class Requests:
    """The requests that arrive on a socket, in rounds of what is there."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(wire.Request)

    def __iter__(self) -> Iterator[list[wire.Request]]:
        while True:
            requests = list(self._complete())
            if requests:
                yield requests
                continue
            data = self._link.recv(RECEIVE_BYTES)
            if not data:
                return
            self._buffer += data

    def _complete(self) -> Iterator[wire.Request]:
        """Yield the requests that have wholly arrived, a round at most."""
        size = wire.HEADER.size
        for _ in range(ROUND_REQUESTS_MAX):
            if len(self._buffer) < size:
                return
            end = size + wire.HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            yield self._decoder.decode(memoryview(self._buffer)[size:end].tobytes())
            del self._buffer[:end]


def serve(directory: Path, link: socket.socket) -> None:
    """Open the collections, then answer until the other side is gone or says close."""
    try:
        shelf = Shelf(directory)
    except PenstockError as error:
        link.sendall(_failure(0, error))
        return
    except OSError as error:
        reason = Unavailable(f"the store cannot open {directory}: {error}", dependency="store")
        link.sendall(_failure(0, reason))
        return
    link.sendall(_success(0, wire.Ready(len(shelf))))
    try:
        for requests in Requests(link):
            link.sendall(b"".join(answer(shelf, requests)))
            if shelf.panicked or any(isinstance(r.command, wire.Close) for r in requests):
                return
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        if shelf.panicked:
            # Flushing could wait for ever on a poisoned lock; the engine's log has every write.
            os._exit(PANIC_EXIT)
        shelf.close()


def main() -> None:
    """Entry point of the process."""
    # The terminal and the service manager signal the whole group; the front decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    directory, fd = sys.argv[1:3]
    with socket.socket(fileno=int(fd)) as link:
        serve(Path(directory), link)


if __name__ == "__main__":
    main()
