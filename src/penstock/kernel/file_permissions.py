"""Owner-only permissions, for files written from now on and for existing ones."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

#: What others may do with a file or directory.
_GROUP_AND_OTHERS: Final = 0o077


def set_private_umask() -> None:
    """Let this process and its children make directories 0700 and files 0600, libraries of theirs included."""
    os.umask(_GROUP_AND_OTHERS)


def restrict_to_owner(directory: Path) -> None:
    """Remove group and other permissions from a directory and all in it. Files of other users are left alone.

    A directory that is closed to others already is not walked, so the walk happens once.
    """
    with contextlib.suppress(OSError):
        if directory.stat().st_mode & _GROUP_AND_OTHERS:
            for place, _, files in os.walk(directory, topdown=False):
                for name in files:
                    _restrict(Path(place, name))
                _restrict(Path(place))


def _restrict(path: Path) -> None:
    # A read-only disk, or a file that has just gone.
    with contextlib.suppress(OSError):
        found = path.lstat()
        if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode) and found.st_mode & _GROUP_AND_OTHERS:
            path.chmod(stat.S_IMODE(found.st_mode) & ~_GROUP_AND_OTHERS)
