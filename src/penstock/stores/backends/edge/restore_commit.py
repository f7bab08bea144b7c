"""Commit of a restore: installs the restored collections by renames that are journalled first.

Layout: ``.staging/<id>/`` in the data directory holds what is being made or restored. Once all of a restore is proven,
``committed.json`` there says which directory goes where. A start of the store completes what a crash has left undone,
before it opens anything. A restore that was not committed is removed.
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

from penstock.kernel.context import new_id
from penstock.kernel.errors import DECODE_ERRORS
from penstock.kernel.files import read_regular
from penstock.stores.backends.edge import manifest

log = logging.getLogger(__name__)

STAGING_DIR: Final = ".staging"
COMMIT_FILE: Final = "committed.json"

#: Numbers of directories that are being removed; no two in one process are the same.
_GONE: Final = itertools.count(1)

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,127}")


class DirectoryMove(msgspec.Struct, frozen=True):
    """Move of one restored directory to its place.

    Attributes:
        shelf: Name of the store process's directory, such as ``collections-2``.
        name: The collection.
        part: Its directory in the staging directory; empty where the collection has none in that process any more.
    """

    shelf: str
    name: str
    part: str


def staging_path(data_dir: Path) -> Path:
    """Return a path for something that is being made; nothing is there yet.

    Raises:
        OSError: The directory above it could not be made, or the data directory is gone.
    """
    # Not its parents: a data directory that was deleted under the server must not come back empty.
    (data_dir / STAGING_DIR).mkdir(exist_ok=True)
    return data_dir / STAGING_DIR / new_id()


def commit_moves(staging: Path, moves: list[DirectoryMove]) -> None:
    """Write the commit file with the moves: from now on a crash does not undo the restore.

    Raises:
        OSError: It could not be written; nothing is committed.
    """
    draft = staging / f".{COMMIT_FILE}"
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(moves))
        file.flush()
        os.fsync(file.fileno())
    manifest.fsync_directory(staging)
    draft.replace(staging / COMMIT_FILE)
    manifest.fsync_directory(staging)
    manifest.fsync_directory(staging.parent)


def withdraw_commit(staging: Path) -> None:
    """Remove the commit file: the moves that are left are not made any more.

    Raises:
        OSError: It could not be removed.
    """
    (staging / COMMIT_FILE).unlink(missing_ok=True)
    manifest.fsync_directory(staging)


def finish_committed(process_dir: Path) -> None:
    """Make the moves that committed restores have left undone in a store process's directory, which must not be open.

    A move that fails is logged, and tried again by the next start.
    """
    for staging in _committed(process_dir.parent):
        for move in _moves(staging):
            if move.shelf != process_dir.name:
                continue
            try:
                remove_in_background(swap_in(staging / move.part if move.part else None, process_dir / move.name))
            except OSError as error:
                log.error(  # noqa: TRY400 - its words say all
                    "collection %s was restored and cannot be moved into %s: %s", move.name, process_dir, error
                )


def sweep_staging(data_dir: Path) -> None:
    """Remove leftovers of a crash from the staging directory, except committed restores with moves left to make."""
    directory = data_dir / STAGING_DIR
    for staging in directory.iterdir() if directory.is_dir() else ():
        if not any(move.part and (staging / move.part).exists() for move in _moves(staging)):
            manifest.remove_path(staging)
    with suppress(OSError):
        directory.rmdir()


def discard_staging(staging: Path) -> None:
    """Remove one staging directory, and their parent with the last one."""
    manifest.remove_path(staging)
    with suppress(OSError):
        staging.parent.rmdir()


def swap_in(source: Path | None, target: Path) -> Path | None:
    """Move a directory to a place and move what is there aside; neither may be open.

    Args:
        source: The directory; ``None`` or one that is not there any more: the place is to be, or has been, cleared.
        target: Its place.

    Returns:
        The path to which the previous directory was moved, if there was one.

    Raises:
        OSError: It could not be moved.
    """
    if source is not None and not source.exists():
        return None
    gone = _hide(target) if target.exists() else None
    if source is not None:
        try:
            source.replace(target)
        except OSError:
            if gone is not None:
                gone.replace(target)
            raise
        manifest.fsync_directory(source.parent)
    manifest.fsync_directory(target.parent)
    return gone


def remove_atomically(directory: Path) -> None:
    """Hide a directory by one rename; a thread removes it file by file."""
    remove_in_background(_hide(directory))


def remove_in_background(gone: Path | None) -> None:
    """Remove a hidden directory, if there is one, in a thread."""
    if gone is not None:
        threading.Thread(target=manifest.remove_path, args=(gone,), name="removal", daemon=True).start()


def _hide(directory: Path) -> Path:
    """Hide a directory by one rename and return its new path; the next start removes what is left there."""
    gone = directory.with_name(f".gone-{os.getpid()}-{next(_GONE)}")
    directory.replace(gone)
    return gone


def _committed(data_dir: Path) -> list[Path]:
    return sorted(path.parent for path in (data_dir / STAGING_DIR).glob(f"*/{COMMIT_FILE}"))


def _moves(staging: Path) -> list[DirectoryMove]:
    """Return the moves in a staging directory's commit file; an unreadable file gives none."""
    try:
        moves = msgspec.json.decode(read_regular(staging / COMMIT_FILE), type=list[DirectoryMove])
    except FileNotFoundError:
        return []
    except (OSError, *DECODE_ERRORS) as error:
        log.warning("%s cannot be read: %s", staging / COMMIT_FILE, error)
        return []
    return [move for move in moves if all(not text or _PLAIN.fullmatch(text) for text in (move.name, move.part))]
