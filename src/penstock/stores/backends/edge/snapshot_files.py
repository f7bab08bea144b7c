"""Directory of snapshot files: their names, the automatic ones among them, and their removal."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from pathlib import Path
from typing import IO, Final

from penstock.kernel.errors import Invalid, truncated
from penstock.stores.backends.edge import archive
from penstock.stores.data_model import SnapshotInfo

log = logging.getLogger(__name__)

SNAPSHOT_SUFFIX: Final = ".snapshot"

#: Snapshots listed at most.
LISTED_MAX: Final = 1000

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

#: The names that the server gives by itself; only what has such a name is ever removed unasked.
_OURS: Final = re.compile(r"(?P<moment>penstock-[0-9]{8}-[0-9]{6})(?:-(?P<number>[0-9]{1,9}))?\.snapshot")

#: The beginning of a file's name that is being packed.
_DRAFT: Final = ".penstock-"

#: What a command has lent to be restored, by the command's process; what is left of one that was killed is removed.
_LENT: Final = re.compile(r"restore-([0-9]{1,9})\.snapshot")


class SnapshotFiles:
    """A directory of snapshots, which need not exist.

    Args:
        directory: The directory.
        keep: Snapshots of the server's own making that are kept; 0: all.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def open(self, name: str) -> IO[bytes]:
        """Open a snapshot for reading.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``), or it is no plain file (``snapshot_damaged``).
            OSError: It could not be opened.
        """
        try:
            return archive.open_file(self._file(name))
        except FileNotFoundError:
            raise _missing(name) from None

    def delete(self, name: str) -> None:
        """Delete a snapshot.

        Raises:
            Invalid: There is none of that name (``snapshot_not_found``).
            OSError: It could not be deleted.
        """
        file = self._file(name)
        if not file.is_symlink() and file.is_dir():
            # No directory is listed, so none is deleted.
            raise _missing(name)
        file.unlink(missing_ok=True)

    def list_snapshots(self) -> list[SnapshotInfo]:
        """Return the snapshots by name, the server's own of one second by number; unusable files with the reason."""
        files = sorted((file for file in self._entries() if _NAME.fullmatch(file.name)), key=_place)
        return [_told(file) for file in files[:LISTED_MAX] if file.is_file() and not _LENT.fullmatch(file.name)]

    def new_path(self, now: dt.datetime) -> Path:
        """Return a path for a new snapshot: two of the same second have two names.

        Raises:
            OSError: The directory could not be made.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        name = f"penstock-{now:%Y%m%d-%H%M%S}"
        taken = [number for moment, number in map(_age, self._entries()) if moment == name]
        return self._directory / (f"{name}-{max(taken) + 1}{SNAPSHOT_SUFFIX}" if taken else f"{name}{SNAPSHOT_SUFFIX}")

    def prune(self, made: Path) -> None:
        """Remove the oldest of the server's own beyond those it keeps, never the one just made.

        Raises:
            OSError: One could not be removed.
        """
        if not self._keep:
            return
        older = sorted((file for file in self._entries() if _OURS.fullmatch(file.name) and file != made), key=_age)
        for file in older[: max(0, len(older) + 1 - self._keep)]:
            log.info("snapshot %s is removed: %d are kept (store.snapshots_keep)", file.name, self._keep)
            file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove unfinished and lent files of killed processes.

        Raises:
            OSError: A file could not be removed.
        """
        for file in self._entries():
            lent = _LENT.fullmatch(file.name)
            if file.name.startswith(_DRAFT) or (lent and not _runs(int(lent[1]))):
                file.unlink(missing_ok=True)

    def _entries(self) -> list[Path]:
        return list(self._directory.iterdir()) if self._directory.is_dir() else []

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or not os.path.lexists(self._directory / name):
            raise _missing(name)
        return self._directory / name


def _told(file: Path) -> SnapshotInfo:
    """Return the description of a snapshot file, read from its header."""
    size = 0
    try:
        size = file.stat().st_size
        opening = archive.read_file_header(file)
    except Invalid as error:
        return SnapshotInfo(file.name, size, "", [], error.detail)
    except OSError as error:
        return SnapshotInfo(file.name, size, "", [], f"it cannot be read: {error.strerror or error}")
    return SnapshotInfo(file.name, size, opening.made_at, [one.name for one in opening.collections])


def _age(file: Path) -> tuple[str, int]:
    """Return the moment in a snapshot's name, and which of that second it is."""
    named = _OURS.fullmatch(file.name)
    return (named["moment"], int(named["number"] or 1)) if named else ("", 0)


def _place(file: Path) -> tuple[str, int]:
    """Return a file's place in the list: the oldest of the server's own comes first."""
    moment, number = _age(file)
    return moment or file.name, number


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _missing(name: str) -> Invalid:
    return Invalid(f"there is no snapshot {truncated(name)!r}", field="snapshot", code="snapshot_not_found")
