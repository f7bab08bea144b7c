"""What the store process is doing, in memory that the front can read: also when it hangs, and after it has died."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import Final, NamedTuple

#: Beats, whether a collection is being opened, length of its name, the name.
_LAYOUT: Final = struct.Struct("<QBB254s")

_NAME_BYTES_MAX: Final = 254


class Doing(NamedTuple):
    """What the process was last at.

    Attributes:
        collection: The collection's name, empty for none.
        opening: Whether it was opening it.
    """

    collection: str
    opening: bool


class Activity:
    """A shared record of one store process: it writes, the front reads.

    A number and a name are written for each piece of work. That takes a microsecond and needs no answer.

    Args:
        fd: Descriptor of the memory, see :func:`make`; this object's from now on.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _LAYOUT.size)
        self._beats = 0
        self._frozen = False

    @property
    def beats(self) -> int:
        """How often the process has gone on."""
        beats: int = _LAYOUT.unpack_from(self._memory)[0]
        return beats

    @property
    def doing(self) -> Doing:
        """What the process was last at."""
        _, opening, length, name = _LAYOUT.unpack_from(self._memory)
        return Doing(name[:length].decode(errors="replace"), bool(opening))

    def note(self, collection: str, *, opening: bool = False) -> None:
        """Write down what is done now; ``collection`` is empty while nothing is."""
        if self._frozen:
            return
        self._beats += 1
        name = collection.encode()[:_NAME_BYTES_MAX]
        _LAYOUT.pack_into(self._memory, 0, self._beats, opening, len(name), name)

    def freeze(self) -> None:
        """Keep what is written: the process ends because of it."""
        self._frozen = True

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.fd)


def make() -> Activity:
    """Return the record of a process that has not begun."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("penstock-activity")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _LAYOUT.size)
    return Activity(fd)
