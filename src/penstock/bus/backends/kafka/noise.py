"""What the library writes to the log: its lines, but each seldom, and none as an error."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

#: A line of one kind is written so often at most.
SELDOM_S: Final = 10.0


class Seldom(logging.Filter):
    """Lets a line of each kind pass once in a while, as information.

    A broker that is gone is told of by every try to reach it, and a topic just made by every broker that has not heard
    of it yet. What comes of such things, the library tries again by itself; what it cannot mend is raised here, and
    the bus's breaker tells of it.

    Args:
        level: Asked whether information is wanted at all.
        now: A clock in seconds.

    Bounds: One entry for each kind of line, which is a format string in the library's source.
    """

    def __init__(self, level: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._level = level
        self._now = now
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        if not self._level.isEnabledFor(logging.INFO):
            return False
        if record.levelno > logging.INFO:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        now_s, kind = self._now(), str(record.msg)
        if now_s - self._last_s.get(kind, -SELDOM_S) < SELDOM_S:
            return False
        self._last_s[kind] = now_s
        return True


def hush(name: str) -> None:
    """Filter all loggers of a library whose modules are loaded; once is enough, more does no harm."""
    ours = logging.getLogger(__name__)
    for logger in [one for one in logging.root.manager.loggerDict if one == name or one.startswith(f"{name}.")]:
        found = logging.getLogger(logger)
        if not any(isinstance(one, Seldom) for one in found.filters):
            found.addFilter(Seldom(ours))
