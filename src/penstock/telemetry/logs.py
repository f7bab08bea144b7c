"""Log lines: one a fact, ``key=value`` after the sentence, on standard error."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Final

_PLAIN: Final = re.compile(r"[^\s\"=]+")
_KNOWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LogfmtFormatter(logging.Formatter):
    """``2026-01-31T12:00:00 warning bus: a topic is filling topic=search.request``."""

    def __init__(self) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        room = record.name.removeprefix("penstock.")
        when = self.formatTime(record, self.datefmt)
        line = f"{when} {record.levelname.lower()} {room}: {record.getMessage()}"
        extra = {k: v for k, v in record.__dict__.items() if k not in _KNOWN}
        if extra:
            line += "".join(f" {key}={_value(value)}" for key, value in extra.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _value(value: object) -> str:
    """Write a value so that it ends where it ends: quoted if it has spaces, quotes or line breaks."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(level: str) -> None:
    """Send log lines of ``level`` and above to standard error; of libraries none below ``info``.

    Debug lines of libraries hold what they send: Kafka's client writes passwords and whole records.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("penstock").setLevel(number)
    for noisy in ("httpx", "httpcore", "httpx2", "httpcore2", "urllib3", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
