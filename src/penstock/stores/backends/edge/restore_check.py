"""Check that restored collections can be opened and read, in a short-lived process, before they are installed.

Run as ``python -m penstock.stores.backends.edge.restore_check EXPECTED PARENT BYTES``. A damaged file may crash the
engine or have it ask for all memory: that ends this process and no other. It reports on its standard output the current
directory, each page read, the reason of a failure, and in the end success.
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

from penstock.kernel.cores import SINGLE_THREADED_ENV
from penstock.stores.backends.edge import query_builder
from penstock.stores.backends.edge.disk import check_cancelled
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.optimiser import NICENESS, die_with_parent
from penstock.stores.backends.edge.shard_counts import IS_FIRST_CHUNK
from penstock.stores.backends.edge.snapshot_format import snapshot_damaged
from penstock.stores.data_model import Match, Point, Prefix

#: Seconds without output after which the engine counts as hanging.
SILENCE_S_MAX: Final = 60.0

#: Seconds between two checks whether the restore was cancelled.
CANCEL_POLL_S: Final = 0.1

#: Points read at once.
PAGE_POINTS: Final = 256

#: Hits asked for when a point of each page is looked for.
LOOKUP_HITS: Final = 10

#: Memory that the process may take: so much, and so many times the bytes of the collections.
MEMORY_BYTES: Final = 2 << 30
MEMORY_PER_DATA_BYTE: Final = 2

#: The longest reason that is reported, and bytes of the process's output that are read at once.
REASON_MAX: Final = 1000
OUTPUT_READ_BYTES: Final = 65_536

_AT: Final = "at "
_READ: Final = "read"
_FAILED: Final = "failed "
_PROVEN: Final = "proven"


class ExpectedCollection(msgspec.Struct, frozen=True):
    """A collection's directory, and the manifest that its contents must agree with."""

    directory: str
    stated: Manifest


def check_restored(expected_file: Path, data_bytes: int, cancelled: threading.Event | None = None) -> None:
    """Open collections in another process and read them from their first point to their last.

    Args:
        expected_file: A file with a list of :class:`ExpectedCollection` as JSON; no process has the collections open.
        data_bytes: Bytes in their files.
        cancelled: Once it is set the process is ended.

    Raises:
        Invalid: One cannot be opened, or does not hold what its manifest says (``snapshot_damaged``).
        OSError: The process could not be started, or it was stopped.

    Bounds: ``SILENCE_S_MAX`` without a sign of life; ``MEMORY_BYTES`` and ``MEMORY_PER_DATA_BYTE`` the data.
    """
    memory = MEMORY_BYTES + MEMORY_PER_DATA_BYTE * data_bytes
    process = subprocess.Popen(  # noqa: S603 - our own module
        [
            sys.executable,
            "-m",
            "penstock.stores.backends.edge.restore_check",
            str(expected_file),
            str(os.getpid()),
            str(memory),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**SINGLE_THREADED_ENV, **os.environ},
    )
    at, reason = "", "the engine crashed, or ran without end"
    try:
        for line in _said(process, cancelled):
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
    # The staging path means nothing to the client.
    raise snapshot_damaged(f"the points of {at!r} cannot be read: {reason.replace(f'{expected_file.parent}/', '')}")


def _said(process: subprocess.Popen[bytes], stopped: threading.Event | None) -> Iterator[str]:
    """Yield the lines that the process writes, until it has ended or has been silent for too long."""
    output = process.stdout
    if output is None:
        return
    poll = select.poll()
    poll.register(output, select.POLLIN)
    rest, heard_s = b"", time.monotonic()
    while time.monotonic() < heard_s + SILENCE_S_MAX:
        check_cancelled(stopped)
        if not poll.poll(CANCEL_POLL_S * 1000):
            continue
        data = os.read(output.fileno(), OUTPUT_READ_BYTES)
        if not data:
            return
        heard_s = time.monotonic()
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def read_all_points(expected: ExpectedCollection) -> Iterator[int]:
    """Read a collection from its first point to its last; yield after each page how many points it had.

    Raises:
        ValueError: It does not hold what its manifest says.
        PenstockError: The engine cannot open or read it.
    """
    stated = expected.stated
    shard = Shard.load(Path(expected.directory) / stated.generation)
    _same("kind of sparse vectors", shard.learned_sparse, bool(stated.sparse))
    points = heads = 0
    after: str | None = None
    while True:
        page = shard.scroll_points(after, PAGE_POINTS)
        for point in page.points:
            if point.dense is not None:
                _same("dimension", len(point.dense), stated.dim)
            if point.token_vectors is not None and stated.token_dim:
                _same("width of token vectors", point.token_vectors.shape[1], stated.token_dim)
            heads += point.payload.chunk == 0
        for point in page.points[:1]:
            _find(shard, point)
        points += len(page.points)
        yield len(page.points)
        if page.next is None or page.next == after:
            break
        after = page.next
    _same("number of points", shard.count(), points)
    _same("number of documents", shard.count([IS_FIRST_CHUNK]), heads)
    if stated.chunks:
        _same("number of points", points, stated.chunks)
        _same("number of documents", heads, stated.documents)
    if not points:
        shard.query_batch([query_builder.arm_query_request(np.zeros(stated.dim, np.float32), 1, shard.sparse_name)])
    shard.close()


def _find(shard: Shard, point: Point) -> None:
    """Look for a point by its vectors and by its payload, so that the engine walks through its indexes too."""
    vectors = (point.dense, point.sparse if len(point.sparse.indices) else None)
    questions = [
        query_builder.arm_query_request(vector, LOOKUP_HITS, shard.sparse_name)
        for vector in vectors
        if vector is not None
    ]
    if not all(shard.query_batch(questions)):
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
    if not die_with_parent(int(parent)):
        return 1
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    try:
        for claim in msgspec.json.decode(Path(claims).read_bytes(), type=list[ExpectedCollection]):
            _say(sys.stdout, _AT + Path(claim.directory).name)
            for _ in read_all_points(claim):
                _say(sys.stdout, _READ)
    except BaseException as error:  # noqa: BLE001 - the root of the process: whatever it is, its parent is told
        _say(sys.stdout, _FAILED + (str(error) or type(error).__name__)[:REASON_MAX])
        return 1
    _say(sys.stdout, _PROVEN)
    return 0


if __name__ == "__main__":
    # The engine is not shut down: after a damaged file that may hang.
    status = main()
    sys.stdout.flush()
    os._exit(status)
