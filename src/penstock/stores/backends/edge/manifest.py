"""What a collection's directory says of itself: its layout, and which generation holds its points.

``collection.json`` is replaced as a whole by one rename, so that it names the old generation or the new one, never
neither. Whatever the manifest does not name is half made or outlived.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import Unavailable
from penstock.stores.records import CollectionInfo

MANIFEST: Final = "collection.json"

#: The first generation's directory; later ones are ``g2``, ``g3``, ….
FIRST: Final = "shard"

_GENERATION: Final = re.compile(r"shard|g[0-9]+")


class Manifest(CollectionInfo, frozen=True):
    """A collection's layout, and where its points are.

    Attributes:
        generation: Name of the directory that holds the points.
    """

    generation: str = FIRST

    @property
    def following(self) -> str:
        """The next generation's name."""
        number = 1 if self.generation == FIRST else int(self.generation[1:])
        return f"g{number + 1}"


def read(directory: Path) -> Manifest:
    """Read the manifest of a collection's directory.

    Raises:
        Unavailable: It cannot be understood (``store_damaged``).
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    if not _GENERATION.fullmatch(manifest.generation):
        raise _damaged(path, f"{manifest.generation!r} is no generation")
    return manifest


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


def sweep(directory: Path, manifest: Manifest) -> None:
    """Remove what a crash has left of other generations."""
    for entry in directory.iterdir():
        outlived = _GENERATION.fullmatch(entry.name) and entry.name != manifest.generation
        if entry.name.startswith(".") or outlived:
            remove(entry)


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
