"""What an index run has to do: pure decisions over the server's listing and the files found."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.cli.records import Listed

UNREADABLE_NAME = "unreadable_name"


@dataclass(frozen=True, slots=True)
class Target:
    """A file that belongs in the collection.

    Attributes:
        id: The document's id: the file's absolute real path.
        path: The path shown to people, relative to the project's root.
        file: Where it is.
        size: Bytes when it was found.
    """

    id: str
    path: str
    file: Path
    size: int


@dataclass(frozen=True, slots=True)
class Root:
    """A path that the user named, and the directory that shown paths below it are relative to."""

    named: Path
    project: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        send: Files that are new, changed or written incompletely.
        unchanged: Files that are there already.
        remove: Ids of documents whose file has vanished or is not indexed any more.
    """

    send: list[Target]
    unchanged: list[Target]
    remove: list[str]


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
    return Target(name, Path(shown).as_posix(), file, size)


def plan(
    listing: Mapping[str, Listed],
    targets: Iterable[Target],
    hashes: Mapping[str, str],
    named: Sequence[Path],
    unseen: Sequence[Path] = (),
) -> Plan:
    """Decide what to send, what to leave and what to remove.

    Args:
        listing: The collection's documents by id.
        targets: The files found.
        hashes: Content hash of found files by id; files that are not listed need none.
        named: The paths the user named, absolute; documents elsewhere are left alone.
        unseen: Files and directories that could not be read now; what is listed below them has not vanished.
    """
    found = list(targets)
    unchanged = {one.id for one in found if _is_current(listing.get(one.id), hashes.get(one.id))}
    present = {one.id for one in found}
    return Plan(
        send=[one for one in found if one.id not in unchanged],
        unchanged=[one for one in found if one.id in unchanged],
        remove=[
            id_ for id_ in listing if id_ not in present and _below_any(id_, named) and not _below_any(id_, unseen)
        ],
    )


def listed_roots(listing: Iterable[Listed]) -> list[Path]:
    """Return the directories that listed paths are relative to: each id without its shown path."""
    roots = {one.id.removesuffix(f"/{one.path}") for one in listing if one.path and one.id.endswith(f"/{one.path}")}
    return sorted(Path(root or "/") for root in roots)


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


def _is_current(listed: Listed | None, content: str | None) -> bool:
    return listed is not None and bool(listed.hash) and listed.hash == content


def _below_any(name: str, directories: Sequence[Path]) -> bool:
    return any(is_below(name, str(directory)) for directory in directories)
