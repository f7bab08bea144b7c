"""Files that only their owner may read: what is written from now on, and what was written before."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

#: What others may do with a file or directory.
_OTHERS: Final = 0o077


def write_privately() -> None:
    """Let this process and its children make directories 0700 and files 0600, libraries of theirs included."""
    os.umask(_OTHERS)


def make_private(directory: Path) -> None:
    """Take a directory that others may enter away from them, with all in it; what is not ours is left as it is.

    A directory that nobody else may enter is not looked into: this costs a walk once.

    Args:
        directory: The directory, which is there.
    """
    with contextlib.suppress(OSError):
        if directory.stat().st_mode & _OTHERS:
            for place, _, files in os.walk(directory, topdown=False):
                for name in files:
                    _take_away(Path(place, name))
                _take_away(Path(place))


def _take_away(path: Path) -> None:
    # A read-only disk, or a file that has just gone.
    with contextlib.suppress(OSError):
        found = path.lstat()
        if found.st_uid == os.geteuid() and not stat.S_ISLNK(found.st_mode) and found.st_mode & _OTHERS:
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
