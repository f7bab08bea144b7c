"""Bounded reads of regular files: a data directory may hold foreign files, and a pipe has no end."""

from __future__ import annotations

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
