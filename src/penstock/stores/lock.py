"""Who holds a data directory: one process at a time, told by a lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import UNREADABLE, Unavailable
from penstock.kernel.private import make_private

LOCK_FILE: Final = "penstock.lock"

#: How often, and how far apart, a taken lock is tried again before it counts as held.
LOCK_TRIES: Final = 10
LOCK_PAUSE_S: Final = 0.02


class Holder(msgspec.Struct, frozen=True):
    """The process that holds a data directory.

    Attributes:
        pid: Its process id.
        url: Where its server listens; empty when it is no server, or not yet.
    """

    pid: int
    url: str = ""


@dataclass(slots=True)
class DirectoryLock:
    """An exclusive ``flock`` on ``penstock.lock``; the file tells others who holds it.

    Attributes:
        directory: The data directory.
    """

    directory: Path
    _fd: int | None = None

    def acquire(self) -> None:
        """Take the directory, creating it if it is not there.

        Raises:
            Unavailable: Another process holds it (``directory_locked``), or it cannot be made.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"cannot use the data directory {self.directory}: {error.strerror}",
                dependency="data directory",
                code="directory_unusable",
            ) from error
        try:
            _lock(fd)
        except OSError as error:
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise Unavailable(
                    f"cannot lock the data directory {self.directory}: {error.strerror}",
                    dependency="data directory",
                    code="directory_unusable",
                ) from error
            other = _read(self.directory)
            who = f"process {other.pid}" if other else "another process"
            where = f", serving {other.url}" if other and other.url else ""
            raise Unavailable(
                f"the data directory {self.directory} is held by {who}{where};"
                " stop it, or choose another directory with --data-dir",
                dependency="data directory",
                code="directory_locked",
            ) from None
        self._fd = fd
        make_private(self.directory)
        self._write(Holder(os.getpid()))

    def announce(self, url: str) -> None:
        """Tell others where this process's server listens."""
        self._write(Holder(os.getpid(), url))

    def release(self) -> None:
        """Give the directory back."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _write(self, holder: Holder) -> None:
        if self._fd is not None:
            data = msgspec.json.encode(holder)
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))


def _lock(fd: int) -> None:
    """Take the exclusive lock, outlasting those who only ask who holds it.

    :func:`holder` can ask in no other way than by holding a shared lock for an instant.

    Raises:
        BlockingIOError: Somebody holds it for longer than an instant.
    """
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if tries_left == 0:
                raise
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def holder(directory: Path) -> Holder | None:
    """Return who holds the data directory now, or ``None`` when nobody does."""
    try:
        fd = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(directory) or Holder(0)
    finally:
        os.close(fd)
    return None


def _read(directory: Path) -> Holder | None:
    try:
        return msgspec.json.decode((directory / LOCK_FILE).read_bytes(), type=Holder)
    except (OSError, *UNREADABLE):
        return None
