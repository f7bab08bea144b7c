"""Restored collections take their places: by renames that are written down beforehand.

Layout: ``.staging/<id>/`` in the data directory holds what is being made or restored. Once all of a restore is proven,
``committed.json`` there says which directory goes where. A start of the store does what a crash has left undone of it,
before it opens anything; what was not committed is removed.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import UNREADABLE
from penstock.kernel.ids import new_id
from penstock.kernel.plain_file import read_plain
from penstock.stores.backends.edge import manifest

log = logging.getLogger(__name__)

STAGING: Final = ".staging"
COMMITTED: Final = "committed.json"

#: Names of what is on its way out; no two in one process are the same.
_GONE: Final = itertools.count(1)

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,127}")


class Move(msgspec.Struct, frozen=True):
    """A directory of a restore that takes its place.

    Attributes:
        shelf: Name of the store process's directory, such as ``collections-2``.
        name: The collection.
        part: Its directory in the staging directory; empty where the collection has none in that process any more.
    """

    shelf: str
    name: str
    part: str


def stage(data_dir: Path) -> Path:
    """Return a path for something that is being made; nothing is there yet.

    Raises:
        OSError: The directory above it could not be made, or the data directory is gone.
    """
    # Not its parents: a data directory that was deleted under the server must not come back empty.
    (data_dir / STAGING).mkdir(exist_ok=True)
    return data_dir / STAGING / new_id()


def commit(staging: Path, moves: list[Move]) -> None:
    """Write down which directories go where: from now on a crash does not undo them.

    Raises:
        OSError: It could not be written; nothing is committed.
    """
    draft = staging / f".{COMMITTED}"
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(moves))
        file.flush()
        os.fsync(file.fileno())
    manifest.sync(staging)
    draft.replace(staging / COMMITTED)
    manifest.sync(staging)
    manifest.sync(staging.parent)


def withdraw(staging: Path) -> None:
    """Take back what is written down: what has not taken its place yet is not to do so any more.

    Raises:
        OSError: It could not be removed.
    """
    (staging / COMMITTED).unlink(missing_ok=True)
    manifest.sync(staging)


def finish(shelf: Path) -> None:
    """Do what committed restores have left undone in a store process's directory; nothing there may be open.

    What cannot be moved is told, and tried again by the next start.
    """
    for staging in _committed(shelf.parent):
        for move in _moves(staging):
            if move.shelf != shelf.name:
                continue
            try:
                remove_later(place(staging / move.part if move.part else None, shelf / move.name))
            except OSError as error:
                log.error("collection %s was restored and cannot take its place in %s: %s", move.name, shelf, error)  # noqa: TRY400 - its words say all


def sweep(data_dir: Path) -> None:
    """Remove what a crash has left in the staging directory, but for committed restores that are not at their end."""
    directory = data_dir / STAGING
    for staging in directory.iterdir() if directory.is_dir() else ():
        if not any(move.part and (staging / move.part).exists() for move in _moves(staging)):
            manifest.remove(staging)
    with suppress(OSError):
        directory.rmdir()


def discard(staging: Path) -> None:
    """Remove something that has been made or was not, and the directory of all such things with the last."""
    manifest.remove(staging)
    with suppress(OSError):
        staging.parent.rmdir()


def place(part: Path | None, home: Path) -> Path | None:
    """Put a directory in the place of what is there, which must not be open.

    Args:
        part: The directory; ``None`` or one that is not there any more: the place is to be, or has been, cleared.
        home: Its place.

    Returns:
        Where the one before is now, out of sight, if there was one.

    Raises:
        OSError: It could not be moved.
    """
    if part is not None and not part.exists():
        return None
    gone = _hide(home) if home.exists() else None
    if part is not None:
        try:
            part.replace(home)
        except OSError:
            if gone is not None:
                gone.replace(home)
            raise
        manifest.sync(part.parent)
    manifest.sync(home.parent)
    return gone


def dismiss(directory: Path) -> None:
    """Take a directory out of sight by one rename; a thread removes it file by file."""
    remove_later(_hide(directory))


def remove_later(gone: Path | None) -> None:
    """Remove a directory that is out of sight, if there is one, in a thread."""
    if gone is not None:
        threading.Thread(target=manifest.remove, args=(gone,), name="removal", daemon=True).start()


def _hide(directory: Path) -> Path:
    """Take a directory out of sight by one rename, and return where it is: the next start removes what is there."""
    gone = directory.with_name(f".gone-{os.getpid()}-{next(_GONE)}")
    directory.replace(gone)
    return gone


def _committed(data_dir: Path) -> list[Path]:
    return sorted(path.parent for path in (data_dir / STAGING).glob(f"*/{COMMITTED}"))


def _moves(staging: Path) -> list[Move]:
    """Return what is written down in a staging directory; what is not ours to read leads nowhere."""
    try:
        moves = msgspec.json.decode(read_plain(staging / COMMITTED), type=list[Move])
    except FileNotFoundError:
        return []
    except (OSError, *UNREADABLE) as error:
        log.warning("%s cannot be read: %s", staging / COMMITTED, error)
        return []
    return [move for move in moves if all(not text or _PLAIN.fullmatch(text) for text in (move.name, move.part))]
