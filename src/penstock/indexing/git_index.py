"""Tracked files of a git work tree, read from its index; no program is run for that.

Format: ``Documentation/gitformat-index.txt`` of git. Names are read, and all else is passed over.
"""

# Strings and os.path, because the walk that asks here has no Path at hand.
# ruff: noqa: PTH120

from __future__ import annotations

import logging
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.indexing.git_repository import GitRepository, config_value, open_repository, read_bytes

log = logging.getLogger(__name__)

#: Of a larger index nothing is read. A million files take some 100 MB.
INDEX_BYTES_MAX: Final = 256_000_000

_HEADER: Final = struct.Struct(">4sII")
#: Bytes of an entry before its object's name, where its mode stands in them, and the kinds of mode.
_STAT_BYTES: Final = 40
_MODE_OFFSET: Final = 24
_SPARSE_DIRECTORY: Final = 0o040000
_EXTENDED: Final = 0x4000
#: The extension that names the file with the other entries of a split index.
_LINK: Final = b"link"


class WorkTree:
    """A git work tree, as a walk goes through it.

    Bounds:
        The names in its index, of ``INDEX_BYTES_MAX`` bytes at most. They are read when something is first ignored.
    """

    def __init__(self, repository: GitRepository) -> None:
        self.repository = repository
        self._base = str(repository.work_tree)
        self._files: set[str] | None = None
        self._directories: set[str] = set()
        self._partly_ignored: set[str] = set()

    def holds_linked_tree(self, directory: str) -> bool:
        """Return whether a directory is another work tree of the same repository, and so holds its files once more."""
        try:
            if not stat.S_ISREG(os.lstat(f"{directory}/.git").st_mode):
                return False
        except OSError:
            return False
        other = open_repository(Path(directory))
        return other is not None and other.common_dir == self.repository.common_dir

    def is_partly_ignored(self, path: str) -> bool:
        """Return whether a path lies in a directory that is ignored but for what is tracked in it."""
        return bool(self._partly_ignored) and os.path.dirname(path) in self._partly_ignored

    def tracks(self, path: str, *, is_directory: bool) -> bool:
        """Return whether an ignored file is tracked, or something below an ignored directory."""
        if self._files is None:
            self._files = set(tracked_files(self.repository))
            self._directories = set(_parents(self._files))
        name = path[len(self._base) :].lstrip("/")
        if is_directory and name in self._directories:
            self._partly_ignored.add(path)
            return True
        # A submodule's directory is itself an entry.
        return name in self._files


def _parents(files: set[str]) -> set[str]:
    found: set[str] = set()
    for file in files:
        directory = os.path.dirname(file)
        while directory and directory not in found:
            found.add(directory)
            directory = os.path.dirname(directory)
    return found


def tracked_files(repository: GitRepository) -> Iterator[str]:
    """Yield the paths in a repository's index, submodules among them; none if it cannot be understood."""
    hash_bytes = 32 if config_value(repository.common_dir / "config", "extensions", "objectformat") == "sha256" else 20
    data = read_bytes(repository.git_dir / "index", INDEX_BYTES_MAX)
    try:
        names, shared = parse_index(data, hash_bytes) if data else ([], "")
        if shared:
            # What is only in the other file may have been deleted since: then there is no such file either.
            data = read_bytes(repository.git_dir / f"sharedindex.{shared}", INDEX_BYTES_MAX)
            names += parse_index(data, hash_bytes)[0] if data else []
    except (struct.error, ValueError, IndexError) as error:
        log.warning(
            "the index in %r cannot be read, so ignored files count as untracked: %s", str(repository.git_dir), error
        )
        return
    yield from (os.fsdecode(name) for name in names if name)


def parse_index(data: bytes, hash_bytes: int = 20) -> tuple[list[bytes], str]:
    """Return the names in an index of version 2, 3 or 4, and the hexadecimal name of the index that it is split from.

    Raises:
        ValueError: It is no such index.
        struct.error: It is cut off.
        IndexError: The same.
    """
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in (2, 3, 4) or count * (_STAT_BYTES + hash_bytes) > len(data):
        raise ValueError(f"it is no index of version 2 to 4, or holds less than {count} entries")
    names: list[bytes] = []
    place, name = _HEADER.size, b""
    flags_offset = _STAT_BYTES + hash_bytes
    for _ in range(count):
        mode = int.from_bytes(data[place + _MODE_OFFSET : place + _MODE_OFFSET + 4], "big")
        flags = int.from_bytes(data[place + flags_offset : place + flags_offset + 2], "big")
        begin = place + flags_offset + (4 if flags & _EXTENDED else 2)
        if version == 4:
            # The name without as many bytes at the end of the one before as a number says.
            removed, begin = _offset_varint(data, begin)
            end = data.index(b"\0", begin)
            name = name[: len(name) - removed] + data[begin:end]
            place = end + 1
        else:
            end = data.index(b"\0", begin)
            name = data[begin:end]
            # One to eight bytes of zero make the entry's length a multiple of eight.
            place += (end - place + 8) // 8 * 8
        if mode & 0o170000 != _SPARSE_DIRECTORY:
            names.append(name)
    return names, _shared_index(data, place, hash_bytes)


def _offset_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number in git's offset encoding, and where what follows it begins."""
    byte = data[place]
    value = byte & 0x7F
    while byte & 0x80:
        place += 1
        byte = data[place]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, place + 1


def _shared_index(data: bytes, place: int, hash_bytes: int) -> str:
    """Return the name of the other index from the extensions, which stand before the checksum."""
    while place + 8 <= len(data) - hash_bytes:
        size = int.from_bytes(data[place + 4 : place + 8], "big")
        if data[place : place + 4] == _LINK:
            return data[place + 8 : place + 8 + hash_bytes].hex()
        place += 8 + size
    return ""
