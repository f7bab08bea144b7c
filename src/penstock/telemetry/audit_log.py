"""Audit log: who did which administrative act, and refused attempts, as JSON lines in the data directory (SPEC A7)."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
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

    Bounds: ``WAITING_MAX`` lines in memory; ``FILES_KEPT`` files of ``FILE_BYTES_MAX`` beside the one being written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / AUDIT_FILE
        self._thread = ThreadPoolExecutor(1, "audit")
        self._lock = threading.Lock()
        self._waiting = 0
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
        """Write what waits, and end the thread."""
        self._thread.shutdown()

    def _append(self, facts: dict[str, object]) -> None:
        now_s = time.time()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
        line = json.dumps({"time": f"{when}.{int(now_s % 1 * 1000):03}Z", **facts}, ensure_ascii=False, default=str)
        with self._lock:
            if self._waiting >= WAITING_MAX:
                log.warning("the audit log is not written, the disk is too slow", extra=facts)
                return
            self._waiting += 1
        self._thread.submit(self._write, line.encode("utf-8", "replace") + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock:
            self._waiting -= 1
        try:
            write_line(self._path, line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("the audit log cannot be written", extra={"file": self._path, "why": error.strerror})
            self._failed = True


def write_line(path: Path, line: bytes) -> None:
    """Append a line to an audit log, which is put aside when it has grown.

    Raises:
        OSError: It cannot be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # One call: lines of several processes do not mix.
        os.write(fd, line)
        grown = os.fstat(fd).st_size > FILE_BYTES_MAX
    finally:
        os.close(fd)
    if grown:
        for number in reversed(range(1, FILES_KEPT)):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
