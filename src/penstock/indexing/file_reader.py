"""The text of one file, whole and unchanged while it was read."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock.indexing.encoding import DecodedText, decode
from penstock.kernel.errors import Invalid, PenstockError

READ_ATTEMPTS_MAX: Final = 3
#: Tells of an open file where it is.
_OPEN_FILES: Final = Path("/proc/self/fd")
_TELLS_PLACES: Final = _OPEN_FILES.is_dir()


class FileChanged(PenstockError):
    """A file kept changing while it was read. The bytes read were discarded."""

    code = "file_changed"
    retryable = True

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} kept changing while it was read; index it again later")
        self.path = path


def read_text(path: Path, bytes_max: int = 1_000_000) -> DecodedText:
    """Return a file's text as it was at one moment, without byte order mark; line ends are as in the file.

    Args:
        path: Its absolute path, without links.
        bytes_max: A larger file is refused.

    Raises:
        FileChanged: Size or modification time changed during each of `READ_ATTEMPTS_MAX` readings.
        UnreadableText: The file is no text, or its encoding is not known.
        Invalid: Not a regular file (`not_a_file`) or larger than `bytes_max` (`too_large`).
        OSError: The file is gone, may not be read, or is not there but where a link leads.
    """
    return decode(read_bytes(path, bytes_max, open_in_place))


def open_in_place(path: str | Path) -> int:
    """Open a file for reading, unless a link has taken the place of it or of a directory around it.

    A walk follows no links, but what it has found may have been replaced since.

    Args:
        path: Its absolute path, without links.

    Raises:
        OSError: It cannot be opened, or is somewhere else (``ELOOP``).
    """
    descriptor = open_regular(path)
    try:
        if _TELLS_PLACES and _place_of(descriptor) != str(path):
            raise OSError(errno.ELOOP, "a link has taken the place of it or of a directory around it", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _place_of(descriptor: int) -> str:
    return os.readlink(f"{_OPEN_FILES}/{descriptor}")  # noqa: PTH115 - a Path for each file doubles a walk's time


def open_regular(path: str | Path) -> int:
    """Open a file for reading, without waiting where a FIFO has taken its place."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read_bytes(path: Path, bytes_max: int, opener: Callable[[Path], int] = open_regular) -> bytes:
    """Return a file's bytes as they were at one moment.

    Args:
        path: The file.
        bytes_max: A larger file is refused.
        opener: Opens it.

    Raises:
        FileChanged: Size or modification time changed during each of `READ_ATTEMPTS_MAX` readings.
        Invalid: Not a regular file (`not_a_file`) or larger than `bytes_max` (`too_large`).
        OSError: The file is gone or may not be read.
    """
    for _ in range(READ_ATTEMPTS_MAX):
        data = _read_once(path, bytes_max, opener)
        if data is not None:
            return data
    raise FileChanged(path)


def _read_once(path: Path, bytes_max: int, opener: Callable[[Path], int]) -> bytes | None:
    """Return the file's bytes, or `None` where it changed while it was read."""
    descriptor = opener(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Invalid(f"{path} is not a regular file", field=str(path), code="not_a_file")
        if before.st_size > bytes_max:
            message = f"{path} has {before.st_size} bytes, more than the {bytes_max} allowed"
            raise Invalid(message, field=str(path), code="too_large")
        data = b""
        # One byte more than expected tells a file that has grown from one that has not.
        while len(data) <= before.st_size and (block := file.read(before.st_size + 1 - len(data))):
            data += block
        after = os.fstat(descriptor)
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return data if unchanged and len(data) == before.st_size else None
