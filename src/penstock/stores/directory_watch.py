"""Watch over the data directory from a thread beside the event loop: still in place, and enough free space."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Below this many free bytes nothing is written any more: the engine maps its files, and a full
#: disk under a mapping ends the process instead of raising an error.
WRITE_FREE_BYTES_MIN: Final = 96 * 2**20

#: Seconds between two checks.
CHECK_INTERVAL_S: Final = 1.0

#: Seconds after which a check that has not ended means that the disk hangs.
HANG_TIMEOUT_S: Final = 5.0


class DataDirectoryWatch:
    """Checks a directory periodically in a thread: a network file system may hang, the event loop must not.

    Args:
        directory: The directory.
        lost_reason: Returns why the directory is not the one that was locked; empty while it is.

    Bounds: one thread, which does not outlive the process.
    """

    def __init__(self, directory: Path, lost_reason: Callable[[], str]) -> None:
        self._directory = directory
        self._lost_reason = lost_reason
        self._ended = threading.Event()
        self._checked_s: float | None = None
        self._lost_message = ""
        self._full_message = ""

    def start(self) -> None:
        """Start the periodic checks."""
        self._checked_s = time.monotonic()
        threading.Thread(target=self._run, name="directory watch", daemon=True).start()

    def close(self) -> None:
        """Stop the checks; one that hangs is not waited for."""
        self._ended.set()

    def check(self) -> None:
        """Check the directory once."""
        self._lost_message = self._lost_reason()
        self._full_message = "" if self._lost_message else self._disk_full_message()
        self._checked_s = time.monotonic()

    def reasons(self) -> list[str]:
        """Return why the server cannot work, as of the last check."""
        if self._checked_s is not None and time.monotonic() >= self._checked_s + HANG_TIMEOUT_S:
            return [f"the data directory {self._directory} does not answer"]
        return [self._lost_message] if self._lost_message else []

    def warnings(self) -> list[str]:
        """Return partial failures: on a full disk nothing is written, but searches go on."""
        return [self._full_message] if self._full_message else []

    def _run(self) -> None:
        while not self._ended.is_set():
            self.check()
            self._ended.wait(CHECK_INTERVAL_S)

    def _disk_full_message(self) -> str:
        try:
            free = shutil.disk_usage(self._directory).free
        except OSError as error:
            return f"the free space of the data directory's disk cannot be read: {error.strerror}"
        if free >= WRITE_FREE_BYTES_MIN:
            return ""
        return f"the disk of the data directory has less than {WRITE_FREE_BYTES_MIN >> 20} MiB left; nothing is written"
