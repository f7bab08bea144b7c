"""Handlers of the store process's commands, and the frames of their replies."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from penstock.kernel.errors import Broken, PenstockError, Unavailable, to_record
from penstock.stores import commands
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.batch_search import retrieve_batch
from penstock.stores.backends.edge.collection_registry import CollectionRegistry
from penstock.stores.backends.edge.point_reader import point_number
from penstock.stores.backends.edge.request_queue import collection_of, is_large
from penstock.stores.commands import StoreCommand

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Requests that the engine gets as one batch.
BATCH_REQUESTS_MAX: Final = 8


def run_command(shelf: CollectionRegistry, command: StoreCommand[Any]) -> Any:
    """Execute one command and return its result."""
    return _COMMANDS[type(command)](shelf, command)


def _update(shelf: CollectionRegistry, command: Any) -> Any:
    return shelf.update(command)


def _add_vectors(shelf: CollectionRegistry, command: commands.AddVectors) -> None:
    """Write those of the points that lack vectors anew, whole. Writes come one by one, so nothing comes in between."""
    if points := shelf.shard(command.collection).completed(command.vectors):
        shelf.update(commands.UpsertPoints(command.collection, points))


def _by_name(points: Sequence[str], read: Callable[[Sequence[int]], dict[int, T]]) -> dict[str, T]:
    """Return values read by point number, keyed by the point ids that the command names."""
    names = {point_number(point): point for point in points}
    return {names[point]: found for point, found in read(list(names)).items()}


_COMMANDS: Final[dict[type, Callable[[CollectionRegistry, Any], Any]]] = {
    commands.CreateCollection: lambda shelf, c: shelf.create(c.info),
    commands.ListCollections: lambda shelf, _: shelf.describe_all(),
    commands.DescribeCollection: lambda shelf, c: shelf.describe(c.collection),
    commands.DropCollection: lambda shelf, c: shelf.drop(c.collection),
    commands.UpsertPoints: _update,
    commands.AddVectors: _add_vectors,
    commands.ReplaceSparse: _update,
    commands.SetTextVersion: lambda shelf, c: shelf.collection(c.collection).set_text_version(
        c.text, renewing=c.renewing
    ),
    commands.TrimDocument: _update,
    commands.SealDocument: _update,
    commands.DeleteDocuments: _update,
    commands.FetchPayloads: lambda shelf, c: _by_name(c.points, shelf.reader(c.collection).fetch_payloads),
    commands.ListDocuments: lambda shelf, c: shelf.shard(c.collection).list_documents(c.filter, c.after, c.limit),
    commands.ListPending: lambda shelf, c: shelf.collection(c.collection).list_pending(c.filter, c.after, c.limit),
    commands.GetDocuments: lambda shelf, c: shelf.shard(c.collection).get_documents(c.document_ids),
    commands.CountDocuments: lambda shelf, c: shelf.shard(c.collection).count_documents(c.filter),
    commands.FetchPoints: lambda shelf, c: shelf.shard(c.collection).fetch_points(c.points),
    commands.ListSources: lambda shelf, c: shelf.list_sources(c.collection),
    commands.PutSource: lambda shelf, c: shelf.put_source(c.collection, c.source),
    commands.DropSource: lambda shelf, c: shelf.drop_source(c.collection, c.name),
    commands.ScrollPoints: lambda shelf, c: shelf.shard(c.collection).scroll_points(c.after, c.limit),
    commands.FetchTokenVectors: lambda shelf, c: _by_name(c.points, shelf.reader(c.collection).fetch_token_vectors),
    commands.SearchBatch: lambda shelf, c: shelf.shard(c.collection).search_batch(c.queries),
    ipc.InstallCollection: lambda shelf, c: shelf.install(c.collection, Path(c.source), force=c.force),
    ipc.OptimizeCollection: lambda shelf, c: shelf.collection(c.collection).start_build(),
    ipc.ShrinkCache: lambda shelf, c: shelf.cache.shrink(c.share),
    ipc.Ping: lambda _shelf, _command: None,
    ipc.CloseStore: lambda shelf, _: shelf.close(),
}


def batch_reads(requests: Iterable[ipc.StoreRequest]) -> list[list[ipc.StoreRequest]]:
    """Group reads for the engine: searches of one kind and collection together, the others alone.

    Bounds: ``BATCH_REQUESTS_MAX`` requests in a batch: each is answered when all of them are.
    """
    open_batches: dict[tuple[type, str], list[ipc.StoreRequest]] = {}
    found: list[list[ipc.StoreRequest]] = []
    for request in requests:
        command = request.command
        if not isinstance(command, commands.Retrieve | commands.SearchBatch) or is_large(command):
            found.append([request])
            continue
        kind = (type(command), command.collection)
        batch = open_batches.get(kind)
        if batch is None or len(batch) == BATCH_REQUESTS_MAX:
            batch = open_batches[kind] = []
            found.append(batch)
        batch.append(request)
    return found


def handle_batch(shelf: CollectionRegistry, batch: list[ipc.StoreRequest]) -> Iterator[bytes]:
    """Execute one batch of :func:`batch_reads` and yield the reply frames."""
    if isinstance(batch[0].command, commands.Retrieve):
        yield from _retrieve_together(shelf, batch)
    elif len(batch) > 1:
        yield from _search_together(shelf, batch)
    else:
        yield from (handle_request(shelf, request) for request in batch)


def _retrieve_together(shelf: CollectionRegistry, requests: list[ipc.StoreRequest]) -> Iterator[bytes]:
    asked: list[Any] = [request.command for request in requests]
    try:
        results = retrieve_batch(shelf.reader(asked[0].collection), asked)
    except Exception as error:  # noqa: BLE001 - the root of these requests: whatever it is, their requesters are told
        told = shelf.note_error(asked[0].collection, error)
        yield from (error_frame(request.number, told) for request in requests)
        return
    for request, result in zip(requests, results, strict=True):
        if isinstance(result, PenstockError):
            yield error_frame(request.number, shelf.note_error(collection_of(request.command), result))
        else:
            yield result_frame(request.number, result)


def _search_together(shelf: CollectionRegistry, requests: list[ipc.StoreRequest]) -> Iterator[bytes]:
    asked: list[Any] = [request.command for request in requests]
    try:
        found = iter(shelf.shard(asked[0].collection).search_batch([query for one in asked for query in one.queries]))
    except PenstockError:
        # One bad query fails the whole batch: find out which by running them one by one.
        yield from (handle_request(shelf, request) for request in requests)
        return
    for request, command in zip(requests, asked, strict=True):
        yield result_frame(request.number, list(islice(found, len(command.queries))))


def handle_request(shelf: CollectionRegistry, request: ipc.StoreRequest) -> bytes:
    """Execute a request's command and return the frame of its reply."""
    try:
        return result_frame(request.number, run_command(shelf, request.command))
    except Exception as error:  # noqa: BLE001 - the root of a request: whatever it is, its requester is told
        return error_frame(request.number, shelf.note_error(collection_of(request.command), error))


def result_frame(number: int, result: object) -> bytes:
    """Return the frame of a reply that carries a result."""
    return ipc.encode_frame(ipc.StoreReply(number, None, msgspec.Raw(ipc.encode(result))))


def error_frame(number: int, error: Exception) -> bytes:
    """Return the frame of a reply that carries an error; an error that is not ours is logged."""
    if not isinstance(error, PenstockError):
        error = _translated(error)
    return ipc.encode_frame(ipc.StoreReply(number, to_record(error), msgspec.Raw(msgspec.msgpack.encode(None))))


#: Errors of the operating system that concern the whole disk.
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
