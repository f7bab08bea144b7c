"""The proof that restored collections can be opened and read, made in a short-lived process before they take a place.

Run as ``python -m penstock.stores.backends.edge.proof CLAIMS PARENT BYTES``. A damaged file may crash the engine or
have it ask for all memory: that ends this process and no other. It says on its standard output at which directory it
is, that it has read a page, why it has failed, and in the end that all is well.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec
import numpy as np

from penstock.kernel.cores import ONE_THREAD
from penstock.stores.backends.edge import asking, packing, wire
from penstock.stores.backends.edge.contents import damaged
from penstock.stores.backends.edge.copying import check_stopped
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.optimiser import NICENESS, end_with
from penstock.stores.backends.edge.tally import FIRST
from penstock.stores.records import Match, Prefix

#: Without a word for so long, the engine hangs.
SILENT_S_MAX: Final = 60.0

#: How often it is looked whether nobody waits any more.
LOOK_S: Final = 0.1

#: Points read at once.
PAGE_POINTS: Final = 256

#: Hits asked for when a point of each page is looked for.
FOUND: Final = 10

#: Memory that the process may take: so much, and so many times the bytes of the collections.
MEMORY_BYTES: Final = 2 << 30
MEMORY_TIMES: Final = 2

#: The longest reason that is told, and what is read at once of what the process says.
REASON_MAX: Final = 1000
PIECE_BYTES: Final = 65_536

_AT: Final = "at "
_READ: Final = "read"
_FAILED: Final = "failed "
_PROVEN: Final = "proven"


class Claim(msgspec.Struct, frozen=True):
    """A collection's directory, and what must be in it."""

    directory: str
    stated: Manifest


def prove(claims: Path, data_bytes: int, stopped: threading.Event | None = None) -> None:
    """Have collections opened, and read from their first point to their last.

    Args:
        claims: A file with a list of :class:`Claim` as JSON; nobody has the collections open.
        data_bytes: Bytes in their files.
        stopped: Once it is set the process is ended.

    Raises:
        Invalid: One cannot be opened, or holds something else than it says (``snapshot_damaged``).
        OSError: The process could not be started, or it was stopped.

    Bounds: ``SILENT_S_MAX`` without a sign of life; ``MEMORY_BYTES`` and ``MEMORY_TIMES`` the data.
    """
    memory = MEMORY_BYTES + MEMORY_TIMES * data_bytes
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "penstock.stores.backends.edge.proof", str(claims), str(os.getpid()), str(memory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**ONE_THREAD, **os.environ},
    )
    at, reason = "", "the engine ends over them, or is at them without end"
    try:
        for line in _said(process, stopped):
            if line == _PROVEN:
                return
            if line.startswith(_AT):
                at = line.removeprefix(_AT)
            elif line.startswith(_FAILED):
                reason = line.removeprefix(_FAILED)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    # Where it was unpacked means nothing to whoever asked.
    raise damaged(f"the points of {at!r} cannot be read: {reason.replace(f'{claims.parent}/', '')}")


def _said(process: subprocess.Popen[bytes], stopped: threading.Event | None) -> Iterator[str]:
    """Yield the lines that the process writes, until it has ended or has been silent for too long."""
    output = process.stdout
    if output is None:
        return
    poll = select.poll()
    poll.register(output, select.POLLIN)
    rest, heard_s = b"", time.monotonic()
    while time.monotonic() < heard_s + SILENT_S_MAX:
        check_stopped(stopped)
        if not poll.poll(LOOK_S * 1000):
            continue
        data = os.read(output.fileno(), PIECE_BYTES)
        if not data:
            return
        heard_s = time.monotonic()
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def read_all(claim: Claim) -> Iterator[int]:
    """Read a collection from its first point to its last; yield after each page how many points it had.

    Raises:
        ValueError: It holds something else than it says.
        PenstockError: The engine cannot open or read it.
    """
    stated = claim.stated
    shard = Shard.load(Path(claim.directory) / stated.generation)
    _same("kind of sparse vectors", shard.learned, bool(stated.sparse))
    points = heads = 0
    after: str | None = None
    while True:
        page = shard.read_points(after, PAGE_POINTS)
        for point in page.points:
            _same("dimension", len(point.dense.data), 4 * stated.dim)
            if point.late is not None and stated.late:
                _same("width of token vectors", len(point.late.data), point.late.rows * stated.late)
            heads += point.payload.chunk == 0
        for point in page.points[:1]:
            _find(shard, point)
        points += len(page.points)
        yield len(page.points)
        if page.next is None or page.next == after:
            break
        after = page.next
    _same("number of points", shard.count(), points)
    _same("number of documents", shard.count([FIRST]), heads)
    if stated.chunks:
        _same("number of points", points, stated.chunks)
        _same("number of documents", heads, stated.documents)
    if not points:
        shard.query([asking.question(np.zeros(stated.dim, np.float32), 1, shard.sparse)])
    shard.close()


def _find(shard: Shard, point: wire.WirePoint) -> None:
    """Look for a point by its vectors and by its payload, so that the engine walks through its indexes too."""
    questions = [asking.question(packing.unpack_dense(point.dense), FOUND, shard.sparse)]
    if point.sparse.indices:
        questions.append(asking.question(packing.unpack_sparse(point.sparse), FOUND, shard.sparse))
    if not all(shard.query(questions)):
        raise ValueError("nothing is found by its vectors")
    chunk = [Match("id", [point.payload.id]), Match("chunk", [point.payload.chunk])]
    _same("number of chunks of one number in one document", shard.count(chunk), 1)
    if point.payload.path and not shard.count([Prefix("path", point.payload.path)]):
        raise ValueError("a document is not found by its path")


def _same(what: str, found: object, stated: object) -> None:
    if found != stated:
        raise ValueError(f"their {what} is {found}, and should be {stated}")


def _say(output: IO[str], line: str) -> None:
    output.write(line.replace("\n", " ") + "\n")
    output.flush()


def main() -> int:
    """Entry point of the process; returns its exit status."""
    claims, parent, memory = sys.argv[1:4]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not end_with(int(parent)):
        return 1
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    try:
        for claim in msgspec.json.decode(Path(claims).read_bytes(), type=list[Claim]):
            _say(sys.stdout, _AT + Path(claim.directory).name)
            for _ in read_all(claim):
                _say(sys.stdout, _READ)
    except BaseException as error:  # noqa: BLE001 - the root of the process: whatever it is, its parent is told
        _say(sys.stdout, _FAILED + (str(error) or type(error).__name__)[:REASON_MAX])
        return 1
    _say(sys.stdout, _PROVEN)
    return 0


if __name__ == "__main__":
    # What a damaged file has left of the engine is not taken apart: that may hang.
    status = main()
    sys.stdout.flush()
    os._exit(status)
