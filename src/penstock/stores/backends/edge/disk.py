"""Directory copies in a background thread that spends nearly all its time in the kernel.

The engine's files are mapped and mostly holes. Only their data is copied.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from penstock.kernel.errors import Unavailable
from penstock.stores.directory_watch import WRITE_FREE_BYTES_MIN

log = logging.getLogger(__name__)

#: Unit of ``st_blocks``.
BLOCK_BYTES: Final = 512


def free_bytes(directory: Path) -> int:
    """Return the free bytes of the disk on which a directory lies."""
    return shutil.disk_usage(directory).free


def is_disk_full(directory: Path) -> bool:
    """Return whether a disk is all but full; one that cannot be asked is not."""
    try:
        return free_bytes(directory) < WRITE_FREE_BYTES_MIN
    except OSError:
        return False


def check_write_space(directory: Path) -> None:
    """Refuse to write where the disk is all but full.

    Raises:
        Unavailable: The disk is all but full (``disk_full``).
    """
    if free_bytes(directory) < WRITE_FREE_BYTES_MIN:
        raise Unavailable(
            f"the disk of the data directory has less than {WRITE_FREE_BYTES_MIN >> 20} MiB left;"
            " nothing is written until there is room",
            dependency="store",
            code="disk_full",
        )


def disk_bytes(directory: Path) -> int:
    """Return the bytes allocated below a directory (its sparse files count what they use)."""
    total = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                total += (Path(parent) / name).lstat().st_blocks * BLOCK_BYTES
            except FileNotFoundError:
                continue
    return total


#: Bytes that one call of the kernel copies; between two calls, the thread waits for the interpreter.
COPY_STEP_BYTES: Final = 16 << 20

#: A copy gives up when it would leave less than this on the disk.
COPY_FREE_BYTES_MIN: Final = 128 << 20


class DirectoryCopy:
    """A directory being copied by a thread of its own.

    The source must not change until the copy has ended.

    Args:
        source: A directory without links.
        target: Where its copy goes; must not exist.

    Attributes:
        error: Why it failed, once it has ended; ``None`` if it did not.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.error: Exception | None = None
        self._done_reader, self._done_writer = os.pipe()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source, target), name="copy", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return a descriptor that is readable once the copy has ended."""
        return self._done_reader

    def close(self) -> None:
        """Stop the copy if it still runs, and wait for its end: at most one step's time."""
        self._cancelled.set()
        self._thread.join()
        for fd in (self._done_reader, self._done_writer):
            os.close(fd)

    def _run(self, source: Path, target: Path) -> None:
        try:
            copy_directory(source, target, self._cancelled)
        except Exception as error:  # noqa: BLE001 - the root of the thread: reported to its owner
            self.error = error
        finally:
            os.write(self._done_writer, b".")


def copy_directory(source: Path, target: Path, cancelled: threading.Event | None = None) -> None:
    """Copy a directory of plain files and directories, holes staying holes.

    Args:
        source: A directory that does not change during the call.
        target: Where its copy goes; must not exist.
        cancelled: Checked between steps; once it is set the copy is left half made.

    Raises:
        OSError: A file could not be read or written, the disk got full, or it was stopped.
    """
    for parent, _, files in os.walk(source):
        place = target / Path(parent).relative_to(source)
        place.mkdir(parents=True)
        for name in files:
            _copy_file(Path(parent) / name, place / name, cancelled)


def _copy_file(source: Path, target: Path, stopped: threading.Event | None) -> None:
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        size = os.fstat(reader.fileno()).st_size
        os.ftruncate(writer.fileno(), size)
        for begin, end in data_extents(reader.fileno(), size):
            for offset in range(begin, end, COPY_STEP_BYTES):
                check_cancelled(stopped)
                check_copy_space(target.parent)
                _copy_range(reader.fileno(), writer.fileno(), offset, min(end, offset + COPY_STEP_BYTES))


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that hold data; the rest are holes, which read as zeros."""
    offset = 0
    while offset < size:
        try:
            begin = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole until the end
                return
            yield offset, size  # a file system that does not tell
            return
        offset = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, offset


def _copy_range(source: int, target: int, offset: int, end: int) -> None:
    while offset < end:
        data = os.pread(source, end - offset, offset)
        if not data:
            return
        offset += os.pwrite(target, data, offset)


def check_cancelled(cancelled: threading.Event | None) -> None:
    """Raise an error if the operation was cancelled.

    Raises:
        OSError: It was (``ECANCELED``).
    """
    if cancelled is not None and cancelled.is_set():
        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))


def check_copy_space(directory: Path) -> None:
    """Raise an error before the disk is full.

    Raises:
        OSError: Less than ``COPY_FREE_BYTES_MIN`` is left (``ENOSPC``).
    """
    if shutil.disk_usage(directory).free < COPY_FREE_BYTES_MIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lock_directory(root: Path) -> int | None:
    """Lock a directory against other store processes; its descriptor also identifies the directory later.

    Raises:
        Unavailable: Another one holds it (``store_locked``).
    """
    fd = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Unavailable(
            "another process holds this data directory's store", dependency="store", code="store_locked"
        ) from None
    except OSError as error:
        # Some network file systems lock files only; the engine's own lock has to do.
        log.debug("%s cannot be locked: %s", root, error)
    return fd
