"""Audit log: who did which administrative act, and refused attempts, as JSON lines in the data directory (SPEC A7)."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import queue
import stat
import threading
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

AUDIT_FILE: Final = "audit.log"
#: Bytes after which the file is put aside, and files that are kept beside it.
FILE_BYTES_MAX: Final = 10_000_000
FILES_KEPT: Final = 9
#: Refused attempts that are written, a second and at once. Others are counted in the next line.
REFUSED_PER_S: Final = 10.0
REFUSED_BURST: Final = 50.0
#: Seconds that the end of the server waits for lines to be written.
CLOSE_S: Final = 5.0
#: Lines that wait for a slow disk. Acts beyond are written to the server's log only.
WAITING_MAX: Final = 1000


class AuditTrail:
    """Audit log that keeps nothing, for a core without a data directory of its own."""

    def act(self, event: str, **facts: object) -> None:
        """Write that an administrative act was done or tried.

        Args:
            event: What it was.
            facts: Who, on what, and how it ended.
        """

    def refused(self, now_s: float, **facts: object) -> None:
        """Write that a request was refused for want of a key, a scope or a collection; a flood of them only in part.

        Args:
            now_s: Seconds on any clock that does not go back.
            facts: Who, what, and why.
        """

    def close(self) -> None:
        """Write what waits."""


class AuditLog(AuditTrail):
    """Appends lines to ``audit.log``, in a thread of its own, so that no request waits for the disk.

    Args:
        directory: The data directory.
        rotates: Whether a grown file is put aside.

    Bounds: ``WAITING_MAX`` lines in memory; ``FILES_KEPT`` files of ``FILE_BYTES_MAX`` beside the one being written.
    """

    def __init__(self, directory: Path, *, rotates: bool = True) -> None:
        self._path = directory / AUDIT_FILE
        self._bytes_max = FILE_BYTES_MAX if rotates else math.inf
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING_MAX)
        self._thread: threading.Thread | None = None
        self._tokens, self._filled_at_s = REFUSED_BURST, 0.0
        self._omitted = 0
        self._failed = False

    def __repr__(self) -> str:
        return f"<AuditLog {self._path}>"

    def act(self, event: str, **facts: object) -> None:
        """Write that an administrative act was done or tried."""
        self._append({"event": event, **facts})

    def refused(self, now_s: float, **facts: object) -> None:
        """Write that a request was refused; a flood of them only in part."""
        passed_s, self._filled_at_s = now_s - self._filled_at_s, now_s
        self._tokens = min(REFUSED_BURST, self._tokens + passed_s * REFUSED_PER_S)
        if self._tokens < 1:
            self._omitted += 1
            return
        self._tokens -= 1
        omitted, self._omitted = self._omitted, 0
        self._append({"event": "refused", **facts, **({"omitted_before": omitted} if omitted else {})})

    def close(self) -> None:
        """Write what waits, unless the disk takes longer than ``CLOSE_S``."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(None)
            thread.join(CLOSE_S)

    def _append(self, facts: dict[str, object]) -> None:
        now_s = time.time()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
        line = json.dumps({"time": f"{when}.{int(now_s % 1 * 1000):03}Z", **facts}, ensure_ascii=False, default=str)
        try:
            self._lines.put_nowait(line.encode("utf-8", "replace") + b"\n")
        except queue.Full:
            log.warning("the audit log is not written, the disk is too slow", extra={"act": facts["event"]})
            return
        if self._thread is None:
            # A disk that hangs holds this thread; the process ends without it.
            self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                # After a line that was cut, a break ends it.
                write_line(self._path, b"\n" + line if self._failed else line, self._bytes_max)
                self._failed = False
            except OSError as error:
                if not self._failed:
                    log.warning("the audit log cannot be written", extra={"file": self._path, "why": error.strerror})
                self._failed = True


def write_line(path: Path, line: bytes, bytes_max: float = FILE_BYTES_MAX) -> None:
    """Append a line to an audit log, which is put aside when it has more than ``bytes_max``.

    Raises:
        OSError: It cannot be written, or is no plain file.
    """
    # Opening a pipe would wait for its other end.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "this is no plain file", str(path))
        # One call: lines of several processes do not mix.
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        grown = found.st_size + len(line) > bytes_max
    finally:
        os.close(fd)
    if grown:
        for number in reversed(range(1, FILES_KEPT)):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
