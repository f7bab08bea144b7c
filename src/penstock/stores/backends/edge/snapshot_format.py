"""Records of a snapshot and the rules that they obey, checked one record at a time before anything is written.

A snapshot may come from anywhere. Its checksum says that it is whole, not who made it, so nothing in it is
trusted: names, paths, sizes and counts are checked against these rules, and the header against the collections.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from penstock.kernel.errors import Invalid
from penstock.stores.backends.edge import manifest
from penstock.stores.backends.edge.manifest import MANIFEST_BYTES_MAX, MANIFEST_FILE, InvalidManifest, Manifest

#: The most of each that a snapshot may hold.
SNAPSHOT_COLLECTIONS_MAX: Final = 10_000
SNAPSHOT_ENTRIES_MAX: Final = 2_000_000
FILE_BYTES_MAX: Final = 1 << 40

#: The engine makes files of 32 MiB and fills them later; a file with larger holes is none of its files.
HOLE_BYTES_MAX: Final = 256 << 20

#: The longest path below a collection's directory, and the most directories on it.
PATH_CHARACTERS_MAX: Final = 1024
DEPTH_MAX: Final = 16

#: A file's or directory's own name.
_PLAIN: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,255}")

#: A collection's directory: its name, and for each shard but the first the shard's number.
_PART: Final = re.compile(r"(?P<name>[^~]+)(?:~(?P<number>[1-9][0-9]?))?")

#: Fields in which a collection's own manifest and the header must agree.
_LAYOUT: Final = ("name", "dim", "model", "shards", "token_dim", "sparse")


class SnapshotHeader(msgspec.Struct, frozen=True, tag="opening", array_like=True):
    """First record of a snapshot: its release, time and collections.

    Attributes:
        version: The release that made it.
        made_at: When, RFC 3339 in UTC.
        collections: The manifest of each collection.
    """

    version: str
    made_at: str
    collections: list[Manifest]


class DirectoryEntry(msgspec.Struct, frozen=True, tag="directory", array_like=True):
    """A directory, by its path below the root."""

    path: str


class FileEntry(msgspec.Struct, frozen=True, tag="file", array_like=True):
    """A file, by its path below the root; its extents follow."""

    path: str
    size: int


class FileExtent(msgspec.Struct, frozen=True, tag="extent", array_like=True):
    """Bytes of the file before; what no extent covers is zero."""

    offset: int
    data: bytes


class SnapshotTrailer(msgspec.Struct, frozen=True, tag="closing", array_like=True):
    """The end: BLAKE2b-256 of everything before this frame."""

    digest: bytes


SnapshotRecord = SnapshotHeader | DirectoryEntry | FileEntry | FileExtent | SnapshotTrailer


@dataclass(slots=True)
class _FileProgress:
    """The file whose extents are being read."""

    path: tuple[str, ...]
    size: int
    end: int = 0
    data_bytes: int = 0
    kept: bytearray | None = None


@dataclass(slots=True)
class SnapshotContents:
    """Contents of a snapshot, collected and checked while its records are read.

    Attributes:
        header: Its first record.
        parts: The manifest of each collection's directory, by the directory's name.
        data_bytes: Bytes in its files; holes do not count.
        entries: Files and directories.
        digest: BLAKE2b-256 of everything before the last frame.

    Bounds: ``SNAPSHOT_COLLECTIONS_MAX`` manifests, and of files one path.
    """

    header: SnapshotHeader | None = None
    parts: dict[str, Manifest] = field(default_factory=dict)
    data_bytes: int = 0
    entries: int = 0
    digest: bytes = b""
    _manifests: dict[str, Manifest] = field(default_factory=dict)
    _last_path: tuple[str, ...] = ()
    _open_directories: list[tuple[str, ...]] = field(default_factory=list)
    _complete_parts: set[str] = field(default_factory=set)
    _file: _FileProgress | None = None

    def add(self, record: SnapshotRecord) -> None:
        """Check a record against everything before it.

        Raises:
            Invalid: It cannot follow (``snapshot_damaged``).
        """
        if (self.header is None) != isinstance(record, SnapshotHeader):
            raise snapshot_damaged(
                "it does not begin with a header" if self.header is None else "its header comes twice"
            )
        match record:
            case SnapshotHeader():
                self._open(record)
            case DirectoryEntry():
                self._enter(record.path, directory=True)
            case FileEntry():
                self._begin(record)
            case FileExtent():
                self._extend(record)
            case SnapshotTrailer():
                self._close(record)

    def _open(self, opening: SnapshotHeader) -> None:
        if len(opening.collections) > SNAPSHOT_COLLECTIONS_MAX:
            raise snapshot_damaged(f"it holds more than {SNAPSHOT_COLLECTIONS_MAX} collections")
        for text in (opening.version, opening.made_at):
            if len(text) > manifest.TEXT_CHARACTERS_MAX or not text.isprintable():
                raise snapshot_damaged(f"{text[: manifest.TEXT_CHARACTERS_MAX]!r} is no version and no time")
        for stated in opening.collections:
            try:
                manifest.check_manifest(stated)
            except InvalidManifest as error:
                raise snapshot_damaged(str(error)) from error
            if stated.name in self._manifests:
                raise snapshot_damaged(f"it holds {stated.name!r} twice")
            self._manifests[stated.name] = stated
        self.header = opening

    def _enter(self, name: str, *, directory: bool) -> tuple[str, ...]:
        """Check a path: it is plain, comes after the one before, and its directory is there."""
        self._end_file()
        self.entries += 1
        if self.entries > SNAPSHOT_ENTRIES_MAX:
            raise snapshot_damaged(f"it holds more than {SNAPSHOT_ENTRIES_MAX} files")
        path = tuple(name.split("/"))
        if len(name) > PATH_CHARACTERS_MAX or len(path) > DEPTH_MAX or not all(map(_PLAIN.fullmatch, _plain(path))):
            raise snapshot_damaged(f"{name[:PATH_CHARACTERS_MAX]!r} leads out of it or is no plain path")
        # Snapshots are written in this order; so nothing comes twice, and only the directories above are remembered.
        if path <= self._last_path:
            raise snapshot_damaged(f"{name!r} comes twice or out of order")
        self._last_path = path
        while self._open_directories and path[: len(self._open_directories[-1])] != self._open_directories[-1]:
            self._open_directories.pop()
        if path[:-1] != (self._open_directories[-1] if self._open_directories else ()):
            raise snapshot_damaged(f"{name!r} lies in no directory of it")
        self._check_place(path, directory=directory)
        if directory:
            self._open_directories.append(path)
        return path

    def _check_place(self, path: tuple[str, ...], *, directory: bool) -> None:
        """Refuse a path that is not a collection's directory, its manifest, or below its generation."""
        part, *below = path
        if not below and directory and self._expected_manifest(part):
            return
        if below == [MANIFEST_FILE] and not directory:
            return
        stated = self.parts.get(part)
        if stated is not None and below[:1] == [stated.generation] and (directory or len(below) > 1):
            self._complete_parts.add(part)
            return
        raise snapshot_damaged(f"{'/'.join(path)!r} belongs to no collection of it")

    def _expected_manifest(self, part: str) -> Manifest | None:
        """Return the header's manifest for a collection's directory."""
        named = _PART.fullmatch(part)
        stated = self._manifests.get(named["name"]) if named else None
        if named is None or stated is None or not named["number"]:
            return stated
        return stated if 2 <= int(named["number"]) <= stated.shards else None

    def _begin(self, file: FileEntry) -> None:
        path = self._enter(file.path, directory=False)
        if not 0 <= file.size <= FILE_BYTES_MAX:
            raise snapshot_damaged(f"{file.path!r} cannot have {file.size} bytes")
        self._file = _FileProgress(path, file.size)
        if path[1:] == (MANIFEST_FILE,):
            if file.size > MANIFEST_BYTES_MAX:
                raise snapshot_damaged(f"{file.path!r} is longer than {MANIFEST_BYTES_MAX} bytes")
            self._file.kept = bytearray(file.size)

    def _extend(self, extent: FileExtent) -> None:
        file, length = self._file, len(extent.data)
        if file is None:
            raise snapshot_damaged("it has bytes of no file")
        if not file.end <= extent.offset <= file.size - length:
            raise snapshot_damaged(f"bytes of {'/'.join(file.path)!r} lie outside of it or over each other")
        file.end = extent.offset + length
        file.data_bytes += length
        self.data_bytes += length
        if file.kept is not None:
            file.kept[extent.offset : file.end] = extent.data

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if file.size - file.data_bytes > HOLE_BYTES_MAX:
            raise snapshot_damaged(f"{'/'.join(file.path)!r} is nearly nothing but holes")
        if file.kept is not None:
            self._check_manifest(file.path[0], bytes(file.kept))

    def _check_manifest(self, part: str, data: bytes) -> None:
        """Take a collection's own manifest, which must agree with the header."""
        stated = self._expected_manifest(part)
        if stated is None:
            raise snapshot_damaged(f"{part!r} belongs to no collection of it")
        try:
            own = manifest.decode_manifest(data, stated.name)
        except InvalidManifest as error:
            raise snapshot_damaged(f"the manifest of {part!r} cannot be used: {error}") from error
        for name in _LAYOUT:
            if getattr(own, name) != getattr(stated, name):
                raise snapshot_damaged(
                    f"its header and the manifest of {part!r} differ: {name} is {getattr(stated, name)!r} in the header"
                )
        self.parts[part] = own

    def _close(self, closing: SnapshotTrailer) -> None:
        self._end_file()
        for name, stated in self._manifests.items():
            for number in range(stated.shards):
                part = shard_directory_name(name, number)
                if part not in self._complete_parts:
                    raise snapshot_damaged(f"the points of {part!r} are missing")
        self.digest = closing.digest


def shard_directory_name(collection: str, number: int) -> str:
    """Return the directory of a shard's part of a collection; no collection has a tilde in its name."""
    return f"{collection}~{number + 1}" if number else collection


def snapshot_damaged(reason: str) -> Invalid:
    """Return the error of a file that is no whole snapshot."""
    return Invalid(f"the snapshot cannot be used: {reason}", field="snapshot", code="snapshot_damaged")


def _plain(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path's names, the first without its shard's number."""
    return (path[0].partition("~")[0], *path[1:])
