"""The store process: one thread, one socket, batches of whatever is waiting.

Run as ``python -m penstock.stores.backends.edge.process DIRECTORY FD OPTIONS``. It ends when the other side
closes the socket, so it never outlives the front that started it, however that one ended.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel import allocator
from penstock.kernel.allocator import freeze_startup_objects
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.kernel.files import set_private_umask
from penstock.policies.reclaim import ReclaimPolicy
from penstock.stores.backends.edge import ipc
from penstock.stores.backends.edge.activity import ActivityRecord
from penstock.stores.backends.edge.collection_registry import MAINTENANCE_INTERVAL_S, CollectionRegistry
from penstock.stores.backends.edge.command_handlers import (
    batch_reads,
    error_frame,
    handle_batch,
    handle_request,
    result_frame,
)
from penstock.stores.backends.edge.crash_attribution import PANIC_EXIT_STATUS
from penstock.stores.backends.edge.disk import DirectoryCopy
from penstock.stores.backends.edge.generation_builder import OnBuildStep, ignore_build_step
from penstock.stores.backends.edge.request_queue import (
    RequestQueue,
    collection_of,
    opening_timeout_error,
    schedule_openings,
)
from penstock.stores.contract import DirectoryGone

RECEIVE_BYTES: Final = 1 << 20

#: Seconds for which updates run at once; then the reads that have arrived since are answered.
WRITE_SLICE_S: Final = 0.01


class StoreProcessServer:
    """Server of the store process: answers requests from a socket in rounds, and advances index builds between them."""

    def __init__(self, registry: CollectionRegistry, connection: socket.socket) -> None:
        self._registry = registry
        self._socket = connection
        self._queue = RequestQueue()
        self._copies: dict[DirectoryCopy, ipc.StoreRequest] = {}
        self._last_notice: ipc.StoreNotice | None = None
        self._last_notice_s = -math.inf
        self._reclaim = ReclaimPolicy()
        self._serving = True

    def run(self) -> None:
        """Serve until the other side is gone or says close, or the engine has panicked."""
        while self._serving and not self._registry.panicked:
            self._registry.activity.record("")
            self._advance_builds(self._wait())
            self._read()
            self._write()
            self._registry.run_maintenance(time.monotonic())
            self._send_notice()
            self._reclaim_memory()

    def _wait(self) -> set[object]:
        """Wait for work, receive requests, and return the copies and builds that are ready."""
        watched: dict[int, object] = {copying.fileno(): copying for copying in self._copies}
        at_once = self._queue.has_work(self._registry.holds_writes)
        for _, renewal in self._registry.builds():
            if renewal.ready:
                at_once = True
            else:
                watched[renewal.fileno()] = renewal
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        if not self._queue.full:
            poll.register(self._socket, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0 if at_once else MAINTENANCE_INTERVAL_S * 1000)}
        if self._socket.fileno() in ready:
            data = self._socket.recv(RECEIVE_BYTES)
            self._serving = bool(data)
            self._queue.feed(data)
        return {watched[fd] for fd in ready if fd in watched}

    def _advance_builds(self, ready: set[object]) -> None:
        for copying in [one for one in self._copies if one in ready]:
            request = self._copies.pop(copying)
            self._registry.collection(_subject(request)).finish_copy(copying)
            error = copying.error
            self._socket.sendall(
                result_frame(request.number, None) if error is None else error_frame(request.number, error)
            )
        for collection, renewal in list(self._registry.builds()):
            if renewal.ready or renewal in ready:
                self._registry.activity.record(collection.manifest.name)
                collection.advance_build()

    def _read(self) -> None:
        """Answer the reads that wait, a round at most; each batch as soon as it is done.

        Reads of open collections come first. One collection is opened in a round, so that no other request waits for
        more than one opening.
        """
        registry, later = self._registry, []
        for batch in batch_reads(self._queue.take_reads()):
            if registry.needs_opening(batch[0].command):
                later.append(batch)
            else:
                self._answer(batch)
        turns = schedule_openings(later, time.monotonic(), registry.opening_s)
        for request in turns.too_late:
            self._socket.sendall(error_frame(request.number, opening_timeout_error(registry.opening_s)))
        if turns.next_batch:
            self._answer(turns.next_batch)
        self._queue.requeue_reads(turns.later)

    def _answer(self, batch: list[ipc.StoreRequest]) -> None:
        self._registry.activity.record(_subject(batch[0]))
        self._socket.sendall(b"".join(handle_batch(self._registry, batch)))

    def _write(self) -> None:
        """Apply one update, and more until ``WRITE_SLICE_S`` is over."""
        until_s = time.monotonic() + WRITE_SLICE_S
        while (request := self._queue.take_write(self._registry.holds_writes)) is not None:
            self._registry.activity.record(_subject(request))
            if isinstance(request.command, ipc.CopyCollection):
                self._copy(request, request.command)
            else:
                self._socket.sendall(handle_request(self._registry, request))
            if isinstance(request.command, ipc.CloseStore):
                self._serving = False
            if not self._serving or self._registry.panicked or time.monotonic() >= until_s:
                return

    def _copy(self, request: ipc.StoreRequest, command: ipc.CopyCollection) -> None:
        """Begin a copy; its requester is answered when it has ended."""
        try:
            copying = self._registry.copy(command.collection, Path(command.target))
        except (PenstockError, OSError) as error:
            self._socket.sendall(error_frame(request.number, error))
        else:
            self._copies[copying] = request

    def _reclaim_memory(self) -> None:
        """Return freed memory to the operating system while no request waits."""
        if len(self._queue):
            return
        if self._reclaim.due(allocator.resident_bytes(), time.process_time(), time.monotonic()):
            allocator.trim_heap()

    def _send_notice(self) -> None:
        """Send a notice when the status of an index build has changed; of other changes, once a second."""
        registry, told, now_s = self._registry, self._last_notice, time.monotonic()
        if (
            told is not None
            and now_s < self._last_notice_s + MAINTENANCE_INTERVAL_S
            and registry.build_statuses() == told.upkeep
        ):
            return
        notice = ipc.StoreNotice(registry.build_statuses(), registry.cache.state(), registry.damaged)
        if notice != told:
            self._last_notice, self._last_notice_s = notice, now_s
            self._socket.sendall(result_frame(ipc.NOTICE_NUMBER, notice))


def _subject(request: ipc.StoreRequest) -> str:
    return collection_of(request.command) or ""


def serve(
    directory: Path, connection: socket.socket, options: ipc.StoreOptions, on_step: OnBuildStep = ignore_build_step
) -> None:
    """Find the collections, then answer until the other side is gone or says close."""
    activity = ActivityRecord(options.activity)
    try:
        _check_same(directory, options.identity)
        registry = CollectionRegistry(
            directory, options.rule, on_step, options.cache_bytes, activity, options.condemned
        )
        registry.disk_starved = options.starved
        registry.check_unverified()
    except PenstockError as error:
        connection.sendall(error_frame(0, error))
        return
    except OSError as error:
        reason = Unavailable(f"the store cannot open {directory}: {error}", dependency="store")
        connection.sendall(error_frame(0, reason))
        return
    allocator.configure_malloc()
    freeze_startup_objects()
    connection.sendall(result_frame(0, ipc.StoreReady(len(registry), directory_id(directory))))
    try:
        StoreProcessServer(registry, connection).run()
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        if registry.panicked:
            # Flushing could wait for ever on a poisoned lock; the engine's log has every write.
            os._exit(PANIC_EXIT_STATUS)
        registry.close()


def directory_id(directory: Path) -> tuple[int, int]:
    """Return a directory's device and inode, which tell it from another at the same path."""
    stat = directory.stat()
    return stat.st_dev, stat.st_ino


def _check_same(directory: Path, identity: tuple[int, int] | None) -> None:
    """Refuse a directory that is not the one that an earlier process of this server had.

    Raises:
        DirectoryGone: It is another one, or there is none.
    """
    if identity is None or (directory.is_dir() and directory_id(directory) == identity):
        return
    raise DirectoryGone(
        f"{directory} was deleted or replaced while the server ran; put it back and restart the server",
        dependency="store",
    )


def main(on_step: OnBuildStep = ignore_build_step) -> None:
    """Entry point of the process."""
    # The terminal and the service manager signal the whole group; the front decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    set_private_umask()
    directory, fd, told = sys.argv[1:4]
    orders = msgspec.json.decode(told, type=ipc.StoreOptions)
    with socket.socket(fileno=int(fd)) as client:
        serve(Path(directory), client, orders, on_step)


if __name__ == "__main__":
    main()
