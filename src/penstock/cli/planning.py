"""What files become in an index run: documents, and requests of several. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNREADABLE_NAME = "unreadable_name"
#: Fewer documents than these may vanish from a tree that still has files, whatever share of it they are.
FEW_VANISHED: Final = 5


@dataclass(frozen=True, slots=True)
class Target:
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
        """Where it is."""
        return Path(self.id)


@dataclass(frozen=True, slots=True)
class Root:
    """A path that the user named, and the directory that shown paths below it are relative to."""

    named: Path
    project: Path


@dataclass(slots=True)
class Loss:
    """What a collection has of a named directory, and how much of that has vanished.

    Attributes:
        named: The directory.
        has_files: Whether a file to index is in it now.
        listed: Documents that the collection has of it.
        vanished: Those whose file is gone.
    """

    named: Path
    has_files: bool = False
    listed: int = 0
    vanished: int = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether it looks less like deleted files than like a disk that is not mounted."""
        if not self.has_files:
            return self.vanished > 0
        return self.vanished >= FEW_VANISHED and 2 * self.vanished > self.listed


def target(file: Path, size: int, roots: Sequence[Root]) -> Target | None:
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
    around = [root for root in roots if is_below(name, str(root.named))]
    project = str(max(around, key=lambda root: len(str(root.named))).project) if around else str(file.parent)
    shown = os.path.relpath(name, project) if is_below(name, project) else file.name
    return Target(name, Path(shown).as_posix(), size)


def listed_root(id_: str, path: str) -> str | None:
    """Return the directory that a listed document's path is relative to: its id without its shown path."""
    if not path or not id_.endswith(f"/{path}"):
        return None
    return id_.removesuffix(f"/{path}") or "/"


def batches(
    items: Iterable[tuple[Target, bytes]], count_max: int, bytes_max: int
) -> Iterator[list[tuple[Target, bytes]]]:
    """Group encoded documents for one request each.

    Bounds:
        At most ``count_max`` documents and ``bytes_max`` bytes; a larger document goes alone.
    """
    batch: list[tuple[Target, bytes]] = []
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
