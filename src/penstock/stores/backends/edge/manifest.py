"""What a collection's directory says of itself: its layout, and which generation holds its points.

``collection.json`` is replaced as a whole by one rename, so that it names the old generation or the new one, never
neither. Whatever the manifest does not name is half made or outlived.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import UNREADABLE, Invalid, Unavailable
from penstock.kernel.plain_file import read_plain
from penstock.stores.backends.layout import check_name
from penstock.stores.records import CollectionInfo

MANIFEST: Final = "collection.json"

#: A longer file is no manifest.
MANIFEST_BYTES_MAX: Final = 64 << 10

#: The largest numbers and the longest texts that a manifest may hold.
DIM_MAX: Final = 65_536
SHARDS_MAX: Final = 64
COUNT_MAX: Final = 1 << 60
TEXT_MAX: Final = 512

_BOUNDS: Final = {"dim": (1, DIM_MAX), "late": (0, DIM_MAX), "shards": (1, SHARDS_MAX)}

#: The first generation's directory; later ones are ``g2``, ``g3``, ….
FIRST: Final = "shard"

_GENERATION: Final = re.compile(r"shard|g[0-9]{1,18}")

#: The newest layout of a collection's directory that this release knows.
FORMAT: Final = 1

#: Beginnings of names of what is half made or half deleted among the collections.
DRAFTS: Final = (".new-", ".gone-", ".snapshot-", ".restore-")


class Manifest(CollectionInfo, frozen=True):
    """A collection's layout, and where its points are.

    Attributes:
        generation: Name of the directory that holds the points.
        format: Number of the directory's layout.
    """

    generation: str = FIRST
    format: int = FORMAT

    @property
    def following(self) -> str:
        """The next generation's name."""
        number = 1 if self.generation == FIRST else int(self.generation[1:])
        return f"g{number + 1}"


class Fault(ValueError):
    """The reason why a manifest cannot be used."""


def read(directory: Path, name: str = "") -> Manifest:
    """Read the manifest of a collection's directory.

    Args:
        directory: The directory.
        name: The collection's name; by default the directory's.

    Raises:
        Unavailable: It cannot be read, or it is not that of the collection (``store_damaged``).
    """
    path = directory / MANIFEST
    try:
        return decode(read_plain(path, MANIFEST_BYTES_MAX), name or directory.name)
    except (OSError, Fault) as error:
        raise _damaged(path, str(error)) from error


def decode(data: bytes, name: str) -> Manifest:
    """Return the manifest of a collection of that name.

    What it says leads to no other place than the collection's own: its name is ``name`` and one that a collection may
    have, its generation is a plain directory, its numbers are such as a collection can have.

    Raises:
        Fault: It cannot be used.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise Fault(f"it is longer than {MANIFEST_BYTES_MAX} bytes")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise Fault(str(error)) from error
    check(manifest)
    if manifest.name != name:
        raise Fault(f"it is the manifest of {manifest.name!r}, not of {name!r}")
    if manifest.format > FORMAT:
        raise Fault(f"a newer release wrote it, in format {manifest.format}; this one knows {FORMAT}")
    return manifest


def check(manifest: Manifest) -> None:
    """Refuse what no collection can be.

    Raises:
        Fault: It names another place, or its numbers or texts are out of bounds.
    """
    try:
        check_name(manifest.name)
    except Invalid as error:
        raise Fault(f"{manifest.name[:TEXT_MAX]!r} is no name: {error.detail}") from error
    if not _GENERATION.fullmatch(manifest.generation):
        raise Fault(f"{manifest.generation[:TEXT_MAX]!r} is no generation")
    for field in manifest.__struct_fields__:
        value = getattr(manifest, field)
        least, most = _BOUNDS.get(field, (0, COUNT_MAX))
        if isinstance(value, int) and not least <= value <= most:
            raise Fault(f"{field} is {value}, and must be {least} to {most}")
        if isinstance(value, str) and not (len(value) <= TEXT_MAX and value.isprintable()):
            raise Fault(f"{field} is {value[:TEXT_MAX]!r}")


def write(directory: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one that is there: both or neither survive a crash.

    Raises:
        OSError: It could not be written; the old one is still there.
    """
    draft = directory / f".{MANIFEST}"
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(directory / MANIFEST)
    sync(directory)


def sync(directory: Path) -> None:
    """Make the directory's entries durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(directory: Path) -> None:
    """Make everything on a directory's file system durable, at once: hundreds of files one by one take seconds.

    Raises:
        OSError: It could not be written.
    """
    fd = os.open(directory, os.O_RDONLY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "syncfs"):
            os.sync()
        elif library.syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(fd)


def sweep(directory: Path, manifest: Manifest) -> None:
    """Remove what a crash has left of other generations."""
    for entry in directory.iterdir():
        outlived = _GENERATION.fullmatch(entry.name) and entry.name != manifest.generation
        if entry.name.startswith(".") or outlived:
            remove(entry)


def is_collection(directory: Path) -> bool:
    """Return whether a directory is a collection's, whole or damaged, and not something else that lies there."""
    if not directory.is_dir():
        return False
    return any(entry.name == MANIFEST or _GENERATION.fullmatch(entry.name) for entry in directory.iterdir())


def remove(path: Path) -> None:
    """Remove a file or a directory, whichever it is, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _damaged(path: Path, reason: str) -> Unavailable:
    return Unavailable(
        f"{path} is damaged: {reason}; restore it, or move {path.parent} away and index anew",
        dependency="store",
        code="store_damaged",
    )
