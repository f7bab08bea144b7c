"""The updates that a generation in the making has missed: a file beside it, replayed before the swap.

It need not survive a crash: until the swap the old generation has every update in its own log.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

import msgspec

from penstock.stores.backends.edge import wire
from penstock.stores.backends.edge.updates import Update

#: A longer journal means that writing outruns optimising; the generation is given up.
JOURNAL_BYTES_MAX: Final = 2 << 30


class Journal:
    """Updates in their order.

    Args:
        path: Its file; made anew.

    Bounds: ``JOURNAL_BYTES_MAX`` on disk; in memory one update.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("x+b", buffering=0)
        self._decoder = msgspec.msgpack.Decoder(Update)
        self._written = 0
        self._read = 0

    @property
    def behind(self) -> int:
        """Bytes that have not been taken yet."""
        return self._written - self._read

    def append(self, command: Update) -> None:
        """Write an update down.

        Raises:
            OSError: The disk is full, or the journal too long.
        """
        data = wire.frame(command)
        if self._written + len(data) > JOURNAL_BYTES_MAX:
            raise OSError(errno.EFBIG, "the journal is too long")
        if os.pwrite(self._file.fileno(), data, self._written) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += len(data)

    def take(self) -> Update | None:
        """Return the next update, ``None`` when there is none left."""
        if not self.behind:
            return None
        fd, size = self._file.fileno(), wire.HEADER.size
        (length,) = wire.HEADER.unpack(os.pread(fd, size, self._read))
        data = os.pread(fd, length, self._read + size)
        self._read += size + length
        command: Update = self._decoder.decode(data)
        return command

    def close(self) -> None:
        """Close and remove it."""
        self._file.close()
        self._path.unlink(missing_ok=True)
