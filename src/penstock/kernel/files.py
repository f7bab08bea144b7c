"""Files: owner-only permissions, and bounded reads of regular files.

A data directory may hold foreign files, and a pipe has no end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final

#: Largest size of a small file that describes others.
SMALL_BYTES_MAX: Final = 16 << 20


def open_regular(path: Path) -> int:
    """Open a plain file for reading without waiting, and return its descriptor.

    Raises:
        OSError: It cannot be opened, or is a pipe, a device or a directory.
    """
    # Opening a pipe waits for its other end unless told not to.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "this is no plain file", str(path))


def read_regular(path: Path, bytes_max: int = SMALL_BYTES_MAX) -> bytes:
    """Return what a plain file holds.

    Raises:
        OSError: As :func:`open_regular`, or it is longer than ``bytes_max``.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"this is longer than {bytes_max} bytes", str(path))
    return data


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
