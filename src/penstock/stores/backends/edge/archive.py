"""Snapshots as one file: a directory's files and what they are, with a digest over all of it.

A line that names format and version, then frames (a length, then a MessagePack record): what it holds, then each
directory and file with the ranges that are no holes, at last the digest of everything before. A file without its last
frame was cut off.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge.copying import extents
from penstock.stores.backends.edge.manifest import Manifest
from penstock.stores.backends.edge.wire import HEADER

MAGIC: Final = b"penstock snapshot 1\n"

#: Bytes of a file in one frame.
PIECE_BYTES: Final = 4 << 20

#: A longer frame is no frame.
FRAME_BYTES_MAX: Final = 64 << 20


class Opening(msgspec.Struct, frozen=True, tag="opening", array_like=True):
    """What a snapshot holds.

    Attributes:
        version: The release that made it.
        made_at: When, RFC 3339 in UTC.
        collections: The manifest of each collection.
    """

    version: str
    made_at: str
    collections: list[Manifest]


class Directory(msgspec.Struct, frozen=True, tag="directory", array_like=True):
    """A directory, by its path below the root."""

    path: str


class File(msgspec.Struct, frozen=True, tag="file", array_like=True):
    """A file, by its path below the root; its extents follow."""

    path: str
    size: int


class Extent(msgspec.Struct, frozen=True, tag="extent", array_like=True):
    """Bytes of the file before; what no extent covers is zero."""

    offset: int
    data: bytes


class Closing(msgspec.Struct, frozen=True, tag="closing", array_like=True):
    """The end: BLAKE2b-256 of everything before this frame."""

    digest: bytes


Record = Opening | Directory | File | Extent | Closing


def pack(source: Path, target: Path, opening: Opening) -> int:
    """Write a directory into a file, whole or not at all; return the file's bytes.

    Args:
        source: A directory that does not change meanwhile.
        target: The file; replaced if it is there.
        opening: What it holds.

    Raises:
        OSError: It could not be written.
    """
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        with draft.open("wb") as file:
            digest = hashlib.blake2b(MAGIC, digest_size=32)
            file.write(MAGIC)
            for record in (opening, *_records(source)):
                data = _frame(record)
                digest.update(data)
                file.write(data)
            file.write(_frame(Closing(digest.digest())))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return size


def opening_of(file: Path) -> Opening:
    """Return what a snapshot holds, without having checked the rest.

    Raises:
        Invalid: It is no snapshot that can be read (``snapshot_damaged``).
    """
    with file.open("rb") as reader:
        record, _ = next(_frames(reader))
    if not isinstance(record, Opening):
        raise damaged("it does not begin as one")
    return record


def unpack(file: Path, target: Path) -> None:
    """Write what a snapshot holds into a new directory; nothing is written before all of it is checked.

    Raises:
        Invalid: It is damaged, cut off or of another format (``snapshot_damaged``).
        OSError: It could not be read or written.
    """
    with file.open("rb") as reader:
        _check(reader)
        reader.seek(0)
        target.mkdir(parents=True)
        _write(reader, target)


def _check(reader: IO[bytes]) -> None:
    """Read a snapshot to its end.

    Raises:
        Invalid: It is not what was written.
    """
    digest = hashlib.blake2b(MAGIC, digest_size=32)
    for record, data in _frames(reader):
        if isinstance(record, Closing):
            if record.digest != digest.digest() or reader.read(1):
                raise damaged("its checksum is another")
            return
        digest.update(data)
    raise damaged("it is cut off")


def _write(reader: IO[bytes], target: Path) -> None:
    writer: IO[bytes] | None = None
    try:
        for record, _ in _frames(reader):
            match record:
                case Closing():
                    return
                case Directory():
                    _inside(target, record.path).mkdir()
                case File():
                    if writer is not None:
                        writer.close()
                    writer = _inside(target, record.path).open("xb")
                    writer.truncate(record.size)
                case Extent() if writer is not None:
                    writer.seek(record.offset)
                    writer.write(record.data)
    finally:
        if writer is not None:
            writer.close()


def damaged(reason: str) -> Invalid:
    """Return the error of a file that is no whole snapshot."""
    return Invalid(f"the snapshot cannot be used: {reason}", field="snapshot", code="snapshot_damaged")


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
        try:
            yield decoder.decode(data), header + data
        except msgspec.MsgspecError as error:
            raise damaged(f"it cannot be read: {error}") from error


def _frame(record: Record) -> bytes:
    data = msgspec.msgpack.encode(record)
    return HEADER.pack(len(data)) + data


def _inside(root: Path, name: str) -> Path:
    """Return a path below the root, and never outside it.

    Raises:
        Invalid: The name leads elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise damaged(f"{name!r} leads out of it")
    return root / path
