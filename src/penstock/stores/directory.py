"""The data directory watched from beside the event loop: whether it is still there, and whether there is room."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: Below this many free bytes nothing is written any more: the engine maps its files, and a full
#: disk under a mapping ends the process instead of raising an error.
FREE_BYTES_MIN: Final = 96 * 2**20

#: Seconds between two looks.
LOOK_S: Final = 1.0

#: A look that has not come back for so long: the disk hangs.
HANGS_S: Final = 5.0


class DirectoryWatch:
    """Looks at a directory again and again, in a thread: a network file system may hang, the event loop must not.

    Args:
        directory: The directory.
        lost: Tells why the directory is not the one that was taken, in words; empty while it is.

    Bounds: one thread, which does not outlive the process.
    """

    def __init__(self, directory: Path, lost: Callable[[], str]) -> None:
        self._directory = directory
        self._lost_because = lost
        self._ended = threading.Event()
        self._looked_s: float | None = None
        self._lost = ""
        self._full = ""

    def start(self) -> None:
        """Begin to look."""
        self._looked_s = time.monotonic()
        threading.Thread(target=self._run, name="directory watch", daemon=True).start()

    def close(self) -> None:
        """Stop looking; a look that hangs is left alone."""
        self._ended.set()

    def look(self) -> None:
        """Look once."""
        self._lost = self._lost_because()
        self._full = "" if self._lost else self._said_of_room()
        self._looked_s = time.monotonic()

    def reasons(self) -> list[str]:
        """Return why the server cannot work, as of the last look."""
        if self._looked_s is not None and time.monotonic() >= self._looked_s + HANGS_S:
            return [f"the data directory {self._directory} does not answer"]
        return [self._lost] if self._lost else []

    def warnings(self) -> list[str]:
        """Return what does not work though the server does: on a full disk searches go on."""
        return [self._full] if self._full else []

    def _run(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(LOOK_S)

    def _said_of_room(self) -> str:
        try:
            free = shutil.disk_usage(self._directory).free
        except OSError as error:
            return f"the disk of the data directory cannot be asked for its room: {error.strerror}"
        if free >= FREE_BYTES_MIN:
            return ""
        return f"the disk of the data directory has less than {FREE_BYTES_MIN >> 20} MiB left; nothing is written"
