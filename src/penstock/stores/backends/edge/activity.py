"""Shared-memory record of the store process's current task, readable while the process hangs and after it has died."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Final, NamedTuple

#: Heartbeats, whether a collection is being opened, length of its name, the name.
_LAYOUT: Final = struct.Struct("<QBB254s")

_NAME_BYTES_MAX: Final = 254


class CurrentTask(NamedTuple):
    """The task that the store process recorded last.

    Attributes:
        collection: The collection's name, empty for none.
        is_opening: Whether it was opening it.
    """

    collection: str
    is_opening: bool


class ActivityRecord:
    """A shared record of one store process: it writes, the front reads.

    A number and a name are written for each piece of work. That takes a microsecond and needs no answer.

    Args:
        fd: Descriptor of the memory, see :func:`create_activity_record`; this object's from now on.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _LAYOUT.size)
        self._beats = 0
        self._frozen = False

    @property
    def heartbeats(self) -> int:
        """Number of records written so far; it stops growing while the process hangs."""
        beats: int = _LAYOUT.unpack_from(self._memory)[0]
        return beats

    @property
    def current_task(self) -> CurrentTask:
        """The task that the process recorded last."""
        _, opening, length, name = _LAYOUT.unpack_from(self._memory)
        return CurrentTask(name[:length].decode(errors="replace"), bool(opening))

    def record(self, collection: str, *, opening: bool = False) -> None:
        """Record the current task; ``collection`` is empty while there is none."""
        if self._frozen:
            return
        self._beats += 1
        name = collection.encode()[:_NAME_BYTES_MAX]
        _LAYOUT.pack_into(self._memory, 0, self._beats, opening, len(name), name)

    def freeze(self) -> None:
        """Keep the current record: the process ends because of this task."""
        self._frozen = True

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.fd)


def create_activity_record() -> ActivityRecord:
    """Return the record of a process that has not begun."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("penstock-activity")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _LAYOUT.size)
    return ActivityRecord(fd)
