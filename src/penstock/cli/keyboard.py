"""Keyboard of a live view: reads single keys from the terminal, without echo."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from collections.abc import Callable
from typing import Any, Final

#: An escape that nothing follows within this time is the key, not the beginning of another key's sequence.
ESCAPE_TIMEOUT_S: Final = 0.05
_ESCAPE: Final = b"\x1b"


class Keyboard:
    """Reads a terminal's keys one by one and without echo, while it is open.

    Args:
        fd: The terminal.
        on_end: Called for ``q`` and Esc, and when the terminal has gone.
    """

    def __init__(self, fd: int, on_end: Callable[[], None]) -> None:
        self._fd = fd
        self._on_end = on_end
        self._before: list[Any] | None = None
        self._escape: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Read keys from now on."""
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        asyncio.get_running_loop().add_reader(self._fd, self._typed)

    def close(self) -> None:
        """Restore the terminal, and discard keys that were not read."""
        if self._escape:
            self._escape.cancel()
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._before is not None:
            # A terminal that has gone needs nothing.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
            self._before = None

    def _typed(self) -> None:
        try:
            self.feed(os.read(self._fd, 256))
        except OSError:
            self.feed(b"")

    def feed(self, keys: bytes) -> None:
        """Take in what was typed; nothing at all means that the terminal has gone."""
        pending, self._escape = self._escape, None
        if pending:
            # The rest of an arrow's or another key's sequence.
            pending.cancel()
            keys = _ESCAPE + keys if keys else keys
        if keys == _ESCAPE:
            self._escape = asyncio.get_running_loop().call_later(ESCAPE_TIMEOUT_S, self._on_end)
        elif keys in {b"", _ESCAPE * 2} or (not keys.startswith(_ESCAPE) and b"q" in keys.lower()):
            self._on_end()
