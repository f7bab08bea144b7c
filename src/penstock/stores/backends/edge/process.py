"""The store process: one thread, one socket, batches of whatever is waiting.

Run as ``python -m penstock.stores.backends.edge.process DIRECTORY FD ORDERS``. It ends when the other side
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
from penstock.kernel.errors import PenstockError, Unavailable
from penstock.kernel.garbage import keep_what_is_there
from penstock.kernel.private import write_privately
from penstock.policies.reclaim import Reclaim
from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.activity import Activity
from penstock.stores.backends.edge.answering import answer, batches, failure, outcome, success
from penstock.stores.backends.edge.blame import PANIC_EXIT
from penstock.stores.backends.edge.copying import Copying
from penstock.stores.backends.edge.intake import Intake, subject
from penstock.stores.backends.edge.openings import too_late, waiting_turns
from penstock.stores.backends.edge.renewal import Step, unwatched
from penstock.stores.backends.edge.shelf import LOOK_S, Shelf
from penstock.stores.errors import DirectoryGone

RECEIVE_BYTES: Final = 1 << 20

#: Updates go on for so long at once; then the reads that have come meanwhile are answered.
WRITES_S: Final = 0.01


class Service:
    """Answers what arrives on a socket, a turn at a time, and makes new generations beside it.

    Args:
        shelf: The collections.
        link: The socket.
    """

    def __init__(self, shelf: Shelf, link: socket.socket) -> None:
        self._shelf = shelf
        self._link = link
        self._intake = Intake()
        self._copies: dict[Copying, wire.Request] = {}
        self._told: wire.Notice | None = None
        self._told_s = -math.inf
        self._reclaim = Reclaim()
        self._open = True

    def run(self) -> None:
        """Serve until the other side is gone or says close, or the engine has panicked."""
        while self._open and not self._shelf.panicked:
            self._shelf.activity.note("")
            self._advance(self._wait())
            self._read()
            self._write()
            self._shelf.look(time.monotonic())
            self._tell()
            self._rest()

    def _wait(self) -> set[object]:
        """Wait until there is something to do, take in what has arrived, and return what else is ready."""
        watched: dict[int, object] = {copying.fileno(): copying for copying in self._copies}
        at_once = self._intake.ready(self._shelf.holds_writes)
        for _, renewal in self._shelf.renewals():
            if renewal.ready:
                at_once = True
            else:
                watched[renewal.fileno()] = renewal
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        if not self._intake.full:
            poll.register(self._link, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0 if at_once else LOOK_S * 1000)}
        if self._link.fileno() in ready:
            data = self._link.recv(RECEIVE_BYTES)
            self._open = bool(data)
            self._intake.feed(data)
        return {watched[fd] for fd in ready if fd in watched}

    def _advance(self, ready: set[object]) -> None:
        """Go on with copies and generations."""
        for copying in [one for one in self._copies if one in ready]:
            request = self._copies.pop(copying)
            self._shelf.collection(_subject(request)).copied(copying)
            error = copying.error
            self._link.sendall(success(request.number, None) if error is None else failure(request.number, error))
        for collection, renewal in list(self._shelf.renewals()):
            if renewal.ready or renewal in ready:
                self._shelf.activity.note(collection.manifest.name)
                collection.advance()

    def _read(self) -> None:
        """Answer the reads that wait, a round at most; each batch as soon as it is done.

        What is about open collections comes first. One collection is opened in a round, so that nobody waits for more
        than one opening whom it does not concern.
        """
        shelf, later = self._shelf, []
        for batch in batches(self._intake.reads()):
            if shelf.needs_opening(batch[0].command):
                later.append(batch)
            else:
                self._answer(batch)
        turns = waiting_turns(later, time.monotonic(), shelf.opening_s)
        for request in turns.too_late:
            self._link.sendall(failure(request.number, too_late(shelf.opening_s)))
        if turns.first:
            self._answer(turns.first)
        self._intake.give_back(turns.later)

    def _answer(self, batch: list[wire.Request]) -> None:
        self._shelf.activity.note(_subject(batch[0]))
        self._link.sendall(b"".join(answer(self._shelf, batch)))

    def _write(self) -> None:
        """Do one update, and more while it takes no time."""
        until_s = time.monotonic() + WRITES_S
        while (request := self._intake.write(self._shelf.holds_writes)) is not None:
            self._shelf.activity.note(_subject(request))
            if isinstance(request.command, wire.Copy):
                self._copy(request, request.command)
            else:
                self._link.sendall(outcome(self._shelf, request))
            if isinstance(request.command, wire.Close):
                self._open = False
            if not self._open or self._shelf.panicked or time.monotonic() >= until_s:
                return

    def _copy(self, request: wire.Request, command: wire.Copy) -> None:
        """Begin a copy; its requester is answered when it has ended."""
        try:
            copying = self._shelf.copy(command.collection, Path(command.target))
        except (PenstockError, OSError) as error:
            self._link.sendall(failure(request.number, error))
        else:
            self._copies[copying] = request

    def _rest(self) -> None:
        """Give back what was freed, while nothing waits."""
        if len(self._intake):
            return
        if self._reclaim.due(allocator.resident_bytes(), time.process_time(), time.monotonic()):
            allocator.trim()

    def _tell(self) -> None:
        """Tell the other side how the upkeep stands as soon as that has changed; what is remembered, each second."""
        shelf, told, now_s = self._shelf, self._told, time.monotonic()
        if told is not None and now_s < self._told_s + LOOK_S and shelf.upkeep() == told.upkeep:
            return
        notice = wire.Notice(shelf.upkeep(), shelf.cache.state(), shelf.damaged)
        if notice != told:
            self._told, self._told_s = notice, now_s
            self._link.sendall(success(wire.NOTICE, notice))


def _subject(request: wire.Request) -> str:
    return subject(request.command) or ""


def serve(directory: Path, link: socket.socket, orders: wire.Orders, step: Step = unwatched) -> None:
    """Find the collections, then answer until the other side is gone or says close."""
    activity = Activity(orders.activity)
    try:
        _check_same(directory, orders.identity)
        shelf = Shelf(directory, orders.rule, step, orders.cache_bytes, activity, orders.condemned)
        shelf.starved = orders.starved
        shelf.prove()
    except PenstockError as error:
        link.sendall(failure(0, error))
        return
    except OSError as error:
        reason = Unavailable(f"the store cannot open {directory}: {error}", dependency="store")
        link.sendall(failure(0, reason))
        return
    allocator.settle()
    keep_what_is_there()
    link.sendall(success(0, wire.Ready(len(shelf), identity_of(directory))))
    try:
        Service(shelf, link).run()
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        if shelf.panicked:
            # Flushing could wait for ever on a poisoned lock; the engine's log has every write.
            os._exit(PANIC_EXIT)
        shelf.close()


def identity_of(directory: Path) -> tuple[int, int]:
    """Return what tells a directory from another one in its place."""
    stat = directory.stat()
    return stat.st_dev, stat.st_ino


def _check_same(directory: Path, identity: tuple[int, int] | None) -> None:
    """Refuse a directory that is not the one that an earlier process of this server had.

    Raises:
        DirectoryGone: It is another one, or there is none.
    """
    if identity is None or (directory.is_dir() and identity_of(directory) == identity):
        return
    raise DirectoryGone(
        f"{directory} was deleted or replaced while the server ran; put it back and restart the server",
        dependency="store",
    )


def main(step: Step = unwatched) -> None:
    """Entry point of the process."""
    # The terminal and the service manager signal the whole group; the front decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write_privately()
    directory, fd, told = sys.argv[1:4]
    orders = msgspec.json.decode(told, type=wire.Orders)
    with socket.socket(fileno=int(fd)) as link:
        serve(Path(directory), link, orders, step)


if __name__ == "__main__":
    main()
