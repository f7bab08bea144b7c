"""Planning of an index run: files become documents, and documents become batches. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNREADABLE_NAME = "unreadable_name"
#: Fewer documents than these may vanish from a tree that still has files, whatever share of it they are.
VANISHED_MIN: Final = 5


@dataclass(frozen=True, slots=True)
class IndexableFile:
    """A file that belongs in the collection.

    Attributes:
        id: The document's id: the file's absolute real path.
        path: The path shown to people, relative to the project's root.
        size: Bytes when it was found.
    """

    id: str
    path: str
    size: int

    @property
    def file(self) -> Path:
        """Path of the file."""
        return Path(self.id)


@dataclass(frozen=True, slots=True)
class IndexRoot:
    """A path that the user named, and the directory that shown paths below it are relative to."""

    path: Path
    project: Path


@dataclass(slots=True)
class VanishedDocuments:
    """Documents that a collection has of a named directory, and how many of them have vanished.

    Attributes:
        directory: The directory.
        has_files: Whether a file to index is in it now.
        listed: Documents that the collection has of it.
        vanished: Those whose file is gone.
    """

    directory: Path
    has_files: bool = False
    listed: int = 0
    vanished: int = 0

    @property
    def looks_unmounted(self) -> bool:
        """True if the loss looks like a disk that is not mounted rather than like deleted files."""
        if not self.has_files:
            return self.vanished > 0
        return self.vanished >= VANISHED_MIN and 2 * self.vanished > self.listed


def indexable_file(file: Path, size: int, roots: Sequence[IndexRoot]) -> IndexableFile | None:
    """Return the document that a found file becomes, ``None`` where its name is no Unicode text.

    Args:
        file: Absolute real path, below at least one of ``roots``.
        size: Its bytes.
        roots: What the user named; the innermost decides how the path is shown.
    """
    name = str(file)
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    around = [root for root in roots if is_below(name, str(root.path))]
    project = str(max(around, key=lambda root: len(str(root.path))).project) if around else str(file.parent)
    shown = os.path.relpath(name, project) if is_below(name, project) else file.name
    return IndexableFile(name, Path(shown).as_posix(), size)


def project_of(id_: str, path: str) -> str | None:
    """Return the directory that a listed document's path is relative to: its id without its shown path."""
    if not path or not id_.endswith(f"/{path}"):
        return None
    return id_.removesuffix(f"/{path}") or "/"


def batches(
    items: Iterable[tuple[IndexableFile, bytes]], count_max: int, bytes_max: int
) -> Iterator[list[tuple[IndexableFile, bytes]]]:
    """Group encoded documents for one request each.

    Bounds:
        At most ``count_max`` documents and ``bytes_max`` bytes; a larger document goes alone.
    """
    batch: list[tuple[IndexableFile, bytes]] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= count_max or size + len(item[1]) > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item[1])
    if batch:
        yield batch


def is_below(name: str, directory: str) -> bool:
    """Tell whether the absolute path ``name`` is ``directory`` or lies in it."""
    return name == directory or name.startswith(directory.rstrip("/") + "/")


def is_below_any(name: str, directories: Iterable[Path]) -> bool:
    """Tell whether the absolute path ``name`` is one of the directories or lies in one."""
    return any(is_below(name, str(directory)) for directory in directories)
