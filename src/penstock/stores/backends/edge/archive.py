"""Snapshots as one file: a directory's files and what they are, with a digest over all of it.

A line that names format and version, then frames (a length, then a MessagePack record): what it holds, then each
directory and file with the ranges that are no holes, at last the digest of everything before. A file without its last
frame was cut off. A snapshot is read twice: once to check all of it (:mod:`penstock.stores.backends.edge.contents`),
and once more, under the same rules, to write what it holds.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final

import msgspec

from penstock.kernel.errors import UNREADABLE
from penstock.stores.backends.edge.contents import (
    Closing,
    Contents,
    Directory,
    Extent,
    File,
    Opening,
    Record,
    damaged,
)
from penstock.stores.backends.edge.copying import check_space, check_stopped, extents
from penstock.stores.backends.edge.manifest import sync, sync_all
from penstock.stores.backends.edge.wire import HEADER

MAGIC: Final = b"penstock snapshot 1\n"

#: Bytes of a file in one frame.
PIECE_BYTES: Final = 4 << 20

#: A longer frame is no frame.
FRAME_BYTES_MAX: Final = 2 * PIECE_BYTES


def pack(source: Path, target: Path, opening: Opening, stopped: threading.Event | None = None) -> int:
    """Write a directory into a file, whole or not at all; return the file's bytes.

    Args:
        source: A directory that does not change meanwhile.
        target: The file; replaced if it is there.
        opening: What it holds.
        stopped: Checked between pieces; once it is set nothing is left of the file.

    Raises:
        Invalid: It would be no snapshot that can be restored (``snapshot_damaged``).
        OSError: It could not be written, the disk got full, or it was stopped.
    """
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    contents = Contents()
    try:
        with draft.open("wb") as file:
            digest = hashlib.blake2b(MAGIC, digest_size=32)
            file.write(MAGIC)
            for record in chain((opening,), _records(source)):
                check_stopped(stopped)
                check_space(target.parent)
                contents.take(record)
                data = _frame(record)
                digest.update(data)
                file.write(data)
            closing = Closing(digest.digest())
            contents.take(closing)
            file.write(_frame(closing))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.replace(target)
        sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)
    return size


def open_file(file: Path) -> IO[bytes]:
    """Open a snapshot for reading: a plain file, no link, pipe or device.

    Raises:
        Invalid: It is none (``snapshot_damaged``).
        OSError: It could not be opened.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if file.is_symlink():
            raise damaged(f"{file.name!r} is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise damaged(f"{file.name!r} is no plain file")
    return os.fdopen(fd, "rb")


def opening_of(file: Path) -> Opening:
    """Return what a snapshot holds, without having checked the rest.

    Raises:
        Invalid: It is no snapshot that can be read (``snapshot_damaged``).
        OSError: It could not be read.
    """
    with open_file(file) as reader:
        return read_opening(reader)


def read_opening(reader: IO[bytes]) -> Opening:
    """Return what an open snapshot holds, without having checked the rest.

    Raises:
        Invalid: It is no snapshot that can be read (``snapshot_damaged``).
        OSError: It could not be read.
    """
    reader.seek(0)
    contents = Contents()
    record, _ = next(_frames(reader))
    contents.take(record)
    if contents.opening is None:
        raise damaged("it does not begin as one")
    return contents.opening


def verify(reader: IO[bytes], stopped: threading.Event | None = None) -> Contents:
    """Read a snapshot to its end, and return what it holds; nothing is written.

    Args:
        reader: The snapshot, open.
        stopped: Checked between records.

    Raises:
        Invalid: It is damaged, cut off, of another format, or breaks a rule (``snapshot_damaged``).
        OSError: It could not be read, or it was stopped.
    """
    contents = Contents()
    for _ in _checked(reader, contents, stopped):
        pass
    return contents


def unpack(reader: IO[bytes], target: Path, verified: Contents, stopped: threading.Event | None = None) -> None:
    """Write what a verified snapshot holds into a new directory, durably.

    Args:
        reader: The snapshot, open.
        target: The directory; must not exist. What is in it after an error is to be removed.
        verified: What :func:`verify` has found in it.
        stopped: Checked between records.

    Raises:
        Invalid: It is not what was verified any more (``snapshot_damaged``).
        OSError: It could not be read or written, the disk got full, or it was stopped.
    """
    target.mkdir(parents=True)
    contents = Contents()
    writer: IO[bytes] | None = None
    try:
        for record in _checked(reader, contents, stopped):
            match record:
                case Directory():
                    (target / record.path).mkdir()
                case File():
                    if writer is not None:
                        writer.close()
                    writer = (target / record.path).open("xb", buffering=0)
                    writer.truncate(record.size)
                case Extent() if writer is not None:
                    check_space(target)
                    _write(writer.fileno(), record)
    finally:
        if writer is not None:
            writer.close()
    if contents.digest != verified.digest:
        raise damaged("it was changed while it was read")
    sync_all(target)


def _checked(reader: IO[bytes], contents: Contents, stopped: threading.Event | None) -> Iterator[Record]:
    """Yield the records of a snapshot, each once it is checked; the last once all of it is.

    Raises:
        Invalid: It is not what was written, or breaks a rule.
    """
    reader.seek(0)
    digest = hashlib.blake2b(MAGIC, digest_size=32)
    for record, data in _frames(reader):
        check_stopped(stopped)
        contents.take(record)
        if isinstance(record, Closing):
            if record.digest != digest.digest() or reader.read(1):
                raise damaged("its checksum is another")
            yield record
            return
        digest.update(data)
        yield record
    raise damaged("it is cut off")


def _write(fd: int, extent: Extent) -> None:
    data, offset = memoryview(extent.data), extent.offset
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _records(source: Path) -> Iterator[Record]:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_dir():
            yield Directory(name)
            continue
        with path.open("rb", buffering=0) as reader:
            size = os.fstat(reader.fileno()).st_size
            yield File(name, size)
            for begin, end in extents(reader.fileno(), size):
                for offset in range(begin, end, PIECE_BYTES):
                    yield Extent(offset, os.pread(reader.fileno(), min(PIECE_BYTES, end - offset), offset))


def _frames(reader: IO[bytes]) -> Iterator[tuple[Record, bytes]]:
    if reader.read(len(MAGIC)) != MAGIC:
        raise damaged("it is no snapshot, or one of a format that this release does not know")
    decoder = msgspec.msgpack.Decoder(Record)
    while True:
        header = reader.read(HEADER.size)
        if len(header) < HEADER.size:
            raise damaged("it is cut off")
        (length,) = HEADER.unpack(header)
        data = reader.read(length) if length <= FRAME_BYTES_MAX else b""
        if len(data) < length:
            raise damaged("it is cut off")
        yield _record(decoder, data), header + data


def _record(decoder: msgspec.msgpack.Decoder[Record], data: bytes) -> Record:
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise damaged(f"it cannot be read: {error}") from error


def _frame(record: Record) -> bytes:
    data = msgspec.msgpack.encode(record)
    return HEADER.pack(len(data)) + data
