"""Single-file format of snapshots: a header, a directory's files, and a digest over all of it.

A line that names format and version, then frames (a length, then a MessagePack record): the header, then each
directory and file with the ranges that are no holes, at last the digest of everything before. A file without its last
frame was cut off. A snapshot is read twice: once to check all of it
(:mod:`penstock.stores.backends.edge.snapshot_format`), and once more, under the same rules, to write what it holds.
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

from penstock.kernel.errors import DECODE_ERRORS
from penstock.stores.backends.edge.disk import check_cancelled, check_copy_space, data_extents
from penstock.stores.backends.edge.ipc import LENGTH_HEADER
from penstock.stores.backends.edge.manifest import fsync_directory, sync_file_system
from penstock.stores.backends.edge.snapshot_format import (
    DirectoryEntry,
    FileEntry,
    FileExtent,
    SnapshotContents,
    SnapshotHeader,
    SnapshotRecord,
    SnapshotTrailer,
    snapshot_damaged,
)

MAGIC: Final = b"penstock snapshot 1\n"

#: Bytes of a file in one frame.
EXTENT_BYTES: Final = 4 << 20

#: A longer frame is no frame.
FRAME_BYTES_MAX: Final = 2 * EXTENT_BYTES


def pack(source: Path, target: Path, header: SnapshotHeader, cancelled: threading.Event | None = None) -> int:
    """Write a directory into a file, whole or not at all; return the file's bytes.

    Args:
        source: A directory that does not change during the call.
        target: The file; replaced if it is there.
        header: The snapshot's header.
        cancelled: Checked between pieces; once it is set nothing is left of the file.

    Raises:
        Invalid: It would be no snapshot that can be restored (``snapshot_damaged``).
        OSError: It could not be written, the disk got full, or it was stopped.
    """
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    contents = SnapshotContents()
    try:
        with draft.open("wb") as file:
            digest = hashlib.blake2b(MAGIC, digest_size=32)
            file.write(MAGIC)
            for record in chain((header,), _records(source)):
                check_cancelled(cancelled)
                check_copy_space(target.parent)
                contents.add(record)
                data = _frame(record)
                digest.update(data)
                file.write(data)
            closing = SnapshotTrailer(digest.digest())
            contents.add(closing)
            file.write(_frame(closing))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.replace(target)
        fsync_directory(target.parent)
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
            raise snapshot_damaged(f"{file.name!r} is a link") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise snapshot_damaged(f"{file.name!r} is no plain file")
    return os.fdopen(fd, "rb")


def read_file_header(file: Path) -> SnapshotHeader:
    """Return a snapshot's header, without checking the rest.

    Raises:
        Invalid: It is no snapshot that can be read (``snapshot_damaged``).
        OSError: It could not be read.
    """
    with open_file(file) as reader:
        return read_header(reader)


def read_header(reader: IO[bytes]) -> SnapshotHeader:
    """Return an open snapshot's header, without checking the rest.

    Raises:
        Invalid: It is no snapshot that can be read (``snapshot_damaged``).
        OSError: It could not be read.
    """
    reader.seek(0)
    contents = SnapshotContents()
    record, _ = next(_frames(reader))
    contents.add(record)
    if contents.header is None:
        raise snapshot_damaged("it does not begin with a header")
    return contents.header


def verify(reader: IO[bytes], cancelled: threading.Event | None = None) -> SnapshotContents:
    """Read and check a snapshot to its end, and return its contents; nothing is written.

    Args:
        reader: The snapshot, open.
        cancelled: Checked between records.

    Raises:
        Invalid: It is damaged, cut off, of another format, or breaks a rule (``snapshot_damaged``).
        OSError: It could not be read, or it was stopped.
    """
    contents = SnapshotContents()
    for _ in _checked(reader, contents, cancelled):
        pass
    return contents


def unpack(
    reader: IO[bytes], target: Path, verified: SnapshotContents, cancelled: threading.Event | None = None
) -> None:
    """Write a verified snapshot's contents into a new directory, durably.

    Args:
        reader: The snapshot, open.
        target: The directory; must not exist. What is in it after an error is to be removed.
        verified: The contents that :func:`verify` returned.
        cancelled: Checked between records.

    Raises:
        Invalid: It has changed since it was verified (``snapshot_damaged``).
        OSError: It could not be read or written, the disk got full, or it was stopped.
    """
    target.mkdir(parents=True)
    contents = SnapshotContents()
    writer: IO[bytes] | None = None
    try:
        for record in _checked(reader, contents, cancelled):
            match record:
                case DirectoryEntry():
                    (target / record.path).mkdir()
                case FileEntry():
                    if writer is not None:
                        writer.close()
                    writer = (target / record.path).open("xb", buffering=0)
                    writer.truncate(record.size)
                case FileExtent() if writer is not None:
                    check_copy_space(target)
                    _write(writer.fileno(), record)
    finally:
        if writer is not None:
            writer.close()
    if contents.digest != verified.digest:
        raise snapshot_damaged("it was changed while it was read")
    sync_file_system(target)


def _checked(
    reader: IO[bytes], contents: SnapshotContents, stopped: threading.Event | None
) -> Iterator[SnapshotRecord]:
    """Yield the records of a snapshot, each once it is checked; the last once all of it is.

    Raises:
        Invalid: It is not what was written, or breaks a rule.
    """
    reader.seek(0)
    digest = hashlib.blake2b(MAGIC, digest_size=32)
    for record, data in _frames(reader):
        check_cancelled(stopped)
        contents.add(record)
        if isinstance(record, SnapshotTrailer):
            if record.digest != digest.digest() or reader.read(1):
                raise snapshot_damaged("its checksum does not match")
            yield record
            return
        digest.update(data)
        yield record
    raise snapshot_damaged("it is cut off")


def _write(fd: int, extent: FileExtent) -> None:
    data, offset = memoryview(extent.data), extent.offset
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def _records(source: Path) -> Iterator[SnapshotRecord]:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_dir():
            yield DirectoryEntry(name)
            continue
        with path.open("rb", buffering=0) as reader:
            size = os.fstat(reader.fileno()).st_size
            yield FileEntry(name, size)
            for begin, end in data_extents(reader.fileno(), size):
                for offset in range(begin, end, EXTENT_BYTES):
                    yield FileExtent(offset, os.pread(reader.fileno(), min(EXTENT_BYTES, end - offset), offset))


def _frames(reader: IO[bytes]) -> Iterator[tuple[SnapshotRecord, bytes]]:
    if reader.read(len(MAGIC)) != MAGIC:
        raise snapshot_damaged("it is no snapshot, or one of a format that this release does not know")
    decoder = msgspec.msgpack.Decoder(SnapshotRecord)
    while True:
        header = reader.read(LENGTH_HEADER.size)
        if len(header) < LENGTH_HEADER.size:
            raise snapshot_damaged("it is cut off")
        (length,) = LENGTH_HEADER.unpack(header)
        data = reader.read(length) if length <= FRAME_BYTES_MAX else b""
        if len(data) < length:
            raise snapshot_damaged("it is cut off")
        yield _record(decoder, data), header + data


def _record(decoder: msgspec.msgpack.Decoder[SnapshotRecord], data: bytes) -> SnapshotRecord:
    try:
        return decoder.decode(data)
    except DECODE_ERRORS as error:
        raise snapshot_damaged(f"it cannot be read: {error}") from error


def _frame(record: SnapshotRecord) -> bytes:
    data = msgspec.msgpack.encode(record)
    return LENGTH_HEADER.pack(len(data)) + data
