"""Damaged collections: the reason, the remedy, and when opening is tried again."""

from __future__ import annotations

import errno
import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.kernel.errors import PenstockError

#: A damaged collection is tried again when it is asked for, at most so often: its files may have been repaired.
REOPEN_RETRY_S: Final = 5.0

#: What an error of the operating system says, quoted by the engine.
_OS_ERROR: Final = re.compile(r"os error ([0-9]{1,5})\b")

#: Numbers of errors that are no collection's fault: memory, mappings, descriptors, the whole disk.
_OF_THE_MACHINE: Final = frozenset(
    {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINTR}
)


@dataclass(frozen=True, slots=True)
class Damage:
    """A collection that could not be opened.

    Attributes:
        reason: Why.
        tried_s: When it was last tried.
        final: It ended the store process, so it is not tried again before the server is started again.
    """

    reason: str
    tried_s: float
    final: bool = False

    def may_retry(self, now_s: float) -> bool:
        """Return whether it may be tried again now."""
        return not self.final and now_s >= self.tried_s + REOPEN_RETRY_S


def errno_of(error: BaseException) -> int:
    """Return the operating system's number in an error, 0 if there is none."""
    if isinstance(error, OSError):
        return error.errno or 0
    if isinstance(error.__cause__, OSError):
        return error.__cause__.errno or 0
    found = _OS_ERROR.search(error.detail if isinstance(error, PenstockError) else str(error))
    return int(found[1]) if found else 0


def is_system_error(error: BaseException) -> bool:
    """Return whether an error says nothing of the files that were read or written."""
    return errno_of(error) in _OF_THE_MACHINE


def is_file_error(error: BaseException) -> bool:
    """Return whether an error during an operation means that the collection's files cannot be used."""
    number = errno_of(error)
    return number != 0 and number not in _OF_THE_MACHINE


def explain_damage(home: Path, error: BaseException) -> str:
    """Return why a collection's directory cannot be used."""
    if errno_of(error) in (errno.EACCES, errno.EPERM):
        for path in _foreign(home):
            me = _user(os.geteuid())
            return (
                f"{path} belongs to {_user(path.lstat().st_uid)}, and the server, which runs as {me}, may not use it:"
                f" chown -R {me} {home}"
            )
    if isinstance(error, PenstockError):
        return error.detail
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or home}: {error.strerror}"
    return str(error)


def _foreign(home: Path) -> Iterator[Path]:
    """Yield each path of a directory tree that this process may not read and write."""
    if is_denied(home):
        yield home
    for parent, directories, files in os.walk(home):
        for path in (Path(parent), *(Path(parent) / name for name in (*directories, *files))):
            if is_denied(path):
                yield path


def is_denied(path: Path) -> bool:
    """Return whether this process may not read and write a file or directory that is there."""
    needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    return os.path.lexists(path) and not os.access(path, needed)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
