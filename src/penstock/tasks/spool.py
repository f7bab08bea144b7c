"""Spool of tasks on the disk: a record and a body for each, complete and durable before a task counts as accepted.

Each record is a file of its own and is replaced as a whole, so a crash leaves the old one or the new one.
Every function here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from penstock.kernel.errors import DECODE_ERRORS, Broken, Unavailable, to_record
from penstock.kernel.files import read_regular
from penstock.stores.directory_watch import WRITE_FREE_BYTES_MIN
from penstock.tasks.records import TASK_ID, TaskRecord, TaskStatus

log = logging.getLogger(__name__)

#: Directory of the spool below the data directory, and of what could not be read below the spool.
SPOOL: Final = "tasks"
DAMAGED: Final = "damaged"

_RECORD: Final = ".json"
_BODY: Final = ".body"
_UNFINISHED: Final = ".tmp"
_FILE: Final = re.compile(rf"({TASK_ID})(\.json|\.body)")

_CODES: Final = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EROFS: "disk_read_only"}


def body_digest(body: bytes) -> str:
    """Return the digest by which a damaged body is recognised."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


class TaskSpool:
    """Spool of tasks in a directory, which is made with the first task."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __repr__(self) -> str:
        return f"<TaskSpool {self._directory}>"

    def accept(self, record: TaskRecord, body: bytes) -> None:
        """Write a new task. Nothing of it is left where that fails.

        Raises:
            Unavailable: The disk is full (``disk_full``) or cannot be written.
        """
        with self._translated():
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                if shutil.disk_usage(self._directory).free < WRITE_FREE_BYTES_MIN + len(body):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if body:
                    self._write(self._path(record.id, _BODY), body)
                self.write(record)
            except BaseException:
                self.remove(record.id)
                raise

    def write(self, record: TaskRecord) -> None:
        """Replace a task's record; drop the body of one that has ended.

        Raises:
            Unavailable: As :meth:`accept`. The record is as it was.
        """
        with self._translated():
            path = self._path(record.id, _RECORD)
            unfinished = path.with_suffix(_UNFINISHED)
            self._write(unfinished, msgspec.json.encode(record))
            unfinished.replace(path)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            if record.status.ended:
                self._path(record.id, _BODY).unlink(missing_ok=True)

    def read_body(self, record: TaskRecord) -> bytes:
        """Return a task's body.

        Raises:
            Broken: It is gone or was changed (``task_damaged``).
        """
        if not record.body_bytes:
            return b""
        with contextlib.suppress(OSError):
            body = read_regular(self._path(record.id, _BODY), record.body_bytes)
            if body_digest(body) == record.body_digest:
                return body
        raise _damaged_error()

    def read(self, id: str) -> TaskRecord | None:
        """Return a task's record with its result, ``None`` where it cannot be read."""
        try:
            return msgspec.json.decode(read_regular(self._path(id, _RECORD)), type=TaskRecord)
        except (OSError, *DECODE_ERRORS):
            return None

    def remove(self, id: str) -> None:
        """Remove a task's files, as far as they are there."""
        for suffix in (_RECORD, _UNFINISHED, _BODY):
            with contextlib.suppress(OSError):
                self._path(id, suffix).unlink()

    def load(self) -> list[TaskRecord]:
        """Return the tasks by id; tidy up what a crash has left, and set aside what cannot be read.

        A task that was running waits again. One whose body is damaged has failed.
        """
        try:
            names = sorted(path.name for path in self._directory.iterdir())
        except OSError:
            return []
        bodies, found = set[str](), list[TaskRecord]()
        for name in names:
            matched = _FILE.fullmatch(name)
            if matched is None:
                if name.endswith(_UNFINISHED):
                    self._directory.joinpath(name).unlink(missing_ok=True)
            elif matched[2] == _BODY:
                bodies.add(matched[1])
            elif (record := self._loaded(matched[1])) is not None:
                found.append(record)
        # A body without a record was never accepted.
        wanted = {record.id for record in found if not record.status.ended}
        for id in bodies - wanted:
            self._path(id, _BODY).unlink(missing_ok=True)
        return found

    def _loaded(self, id: str) -> TaskRecord | None:
        record = self.read(id)
        if record is None or record.id != id:
            self._set_aside(id)
            return None
        record = record.without_result()
        if record.status.ended:
            return record
        if record.body_bytes and not self._has_body(record):
            log.warning("the body of the task %s is damaged; the task has failed", id)
            return record.changed(status=TaskStatus.FAILED, error=to_record(_damaged_error()))
        return record.changed(status=TaskStatus.WAITING)

    def _has_body(self, record: TaskRecord) -> bool:
        with contextlib.suppress(OSError):
            return self._path(record.id, _BODY).stat().st_size == record.body_bytes
        return False

    def _set_aside(self, id: str) -> None:
        """Move the files of a task whose record cannot be read to where somebody can look at them."""
        aside = self._directory / DAMAGED
        log.warning("the record of the task %s cannot be read; its files are in %s", id, aside)
        with contextlib.suppress(OSError):
            aside.mkdir(mode=0o700, exist_ok=True)
            for suffix in (_RECORD, _BODY):
                with contextlib.suppress(FileNotFoundError):
                    self._path(id, suffix).replace(aside / f"{id}{suffix}")

    def _path(self, id: str, suffix: str) -> Path:
        return self._directory / f"{id}{suffix}"

    def _write(self, path: Path, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            code = _CODES.get(error.errno or 0, "directory_unusable")
            detail = f"the data directory does not take the task: {error.strerror or error}; nothing has changed"
            raise Unavailable(detail, dependency="store", code=code) from error


def _damaged_error() -> Broken:
    detail = "the task's body on the server's disk is gone or was changed; send the request again"
    return Broken(detail, code="task_damaged")
