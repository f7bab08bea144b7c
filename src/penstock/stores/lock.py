"""Lock of a data directory: one process at a time holds it, and it is freed when that process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Unavailable
from penstock.kernel.files import open_regular, read_regular, restrict_to_owner

log = logging.getLogger(__name__)

LOCK_FILE: Final = "penstock.lock"

#: How often, and how far apart, a taken lock is tried again before it counts as held.
LOCK_ATTEMPTS_MAX: Final = 10
LOCK_PAUSE_S: Final = 0.02


class LockHolder(msgspec.Struct, frozen=True):
    """The process that holds a data directory.

    Attributes:
        pid: Its process id.
        url: Where its server listens; empty when it is no server, or not yet.
        key: A key for commands of the directory's owner, who alone can read it here.
        agent_key: A key that reads, for agents that the owner starts.
        certificate: The server's certificate (PEM), empty for a server without TLS.
    """

    pid: int
    url: str = ""
    key: str = ""
    agent_key: str = ""
    certificate: str = ""

    def __repr__(self) -> str:
        return f"<LockHolder {self.pid} {self.url}>"


@dataclass(slots=True)
class DirectoryLock:
    """An exclusive ``flock`` on ``penstock.lock``; the file tells others who holds it."""

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
            raise _unusable(self.directory, error) from error
        try:
            _lock(fd)
        except OSError as error:
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise _unusable(self.directory, error) from error
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
        restrict_to_owner(self.directory)
        self._write(LockHolder(os.getpid()))

    def publish(self, server: LockHolder) -> None:
        """Tell others where this process's server listens, and what they need to use it."""
        self._write(server)

    def release(self) -> None:
        """Release the directory."""
        if self._fd is not None:
            # Not emptied: the next holder finds room for its name, though the disk may be full by then.
            self._write(LockHolder(0))
            os.close(self._fd)
            self._fd = None

    def lost_reason(self) -> str:
        """Return why the directory is not the one that was locked; empty while it is."""
        if self._fd is None:
            return ""
        try:
            ours = os.fstat(self._fd)
            there = (self.directory / LOCK_FILE).stat()
        except FileNotFoundError:
            there = None
        except OSError as error:
            return f"the data directory {self.directory} cannot be read: {error.strerror}"
        if there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return ""
        what = "gone" if there is None else "another one"
        return f"the data directory {self.directory} is {what}; put it back and restart the server"

    def _write(self, holder: LockHolder) -> None:
        if self._fd is None:
            return
        data = msgspec.json.encode(holder)
        try:
            os.pwrite(self._fd, data, 0)
            os.ftruncate(self._fd, len(data))
        except OSError as error:
            # The lock holds all the same; only other commands cannot learn where the server is.
            log.warning("the lock's holder cannot be written to %s: %s", self.directory / LOCK_FILE, error.strerror)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)


def _unusable(directory: Path, error: OSError) -> Unavailable:
    """Return the error of a directory that cannot be taken, with what to do about it."""
    cures = {
        errno.EROFS: "Penstock writes there also when it only searches: copy it to a disk that can be written, and name"
        " the copy with --data-dir",
        errno.EACCES: f"{_user(os.geteuid())} runs this, and it belongs to {_owner(directory)}; change its owner",
        errno.ENOSPC: "free some room on its disk",
        errno.EDQUOT: "free some room on its disk",
        errno.ENOTDIR: "part of this path is a file; choose another one with --data-dir",
        errno.EEXIST: "this is a file; choose another path with --data-dir",
    }
    cure = cures.get(error.errno or 0, "choose another one with --data-dir")
    return Unavailable(
        f"cannot use the data directory {directory}: {error.strerror}; {cure}",
        dependency="data directory",
        code="directory_unusable",
    )


def _owner(directory: Path) -> str:
    """Return who owns a directory's lock file, or else the nearest directory that exists."""
    for path in (directory / LOCK_FILE, directory, *directory.parents):
        with contextlib.suppress(OSError):
            return _user(path.stat().st_uid)
    return "somebody else"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _lock(fd: int) -> None:
    """Take the exclusive lock, waiting out processes that only ask for its holder.

    :func:`find_lock_holder` can only ask by taking a shared lock for an instant.

    Raises:
        BlockingIOError: Somebody holds it for longer than an instant.
    """
    for tries_left in reversed(range(LOCK_ATTEMPTS_MAX)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if tries_left == 0:
                raise
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def find_lock_holder(directory: Path) -> LockHolder | None:
    """Return the process that holds the data directory now, ``None`` if there is none."""
    try:
        fd = open_regular(directory / LOCK_FILE)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(directory) or LockHolder(0)
    finally:
        os.close(fd)
    return None


def _read(directory: Path) -> LockHolder | None:
    try:
        return msgspec.json.decode(read_regular(directory / LOCK_FILE), type=LockHolder)
    except (OSError, *DECODE_ERRORS):
        return None
