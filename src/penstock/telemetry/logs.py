"""Log lines: one a fact, with its values and the request's id, on standard error."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from typing import Any, Final

from penstock.kernel.context import current_request_id

_PLAIN: Final = re.compile(r"[^\s\"=]+")
_KNOWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class LogfmtFormatter(logging.Formatter):
    """``2026-01-31T12:00:00 warning bus: a topic is filling topic=search.request``."""

    def __init__(self) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = self.formatTime(record, self.datefmt)
        line = f"{when} {record.levelname.lower()} {_room(record)}: {record.getMessage()}"
        line += "".join(f" {key}={_value(value)}" for key, value in _facts(record).items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """``{"time": "2026-01-31T12:00:00.000Z", "level": "warning", "logger": "bus", "message": "a topic is filling"}``.

    The facts of a line are further members, ``request_id`` among them, and a traceback is ``exception``.
    A fact that has the name of a member that every line has is written as ``NAME_``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: one JSON object without a line break."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": _room(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= {f"{key}_" if key in line else key: value for key, value in _facts(record).items()}
        return json.dumps(line, ensure_ascii=False, default=str)


def _room(record: logging.LogRecord) -> str:
    return record.name.removeprefix("penstock.")


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """Return what was logged beside the sentence, and the id of the request that the task works on."""
    facts = {key: value for key, value in record.__dict__.items() if key not in _KNOWN}
    if request_id := current_request_id.get():
        facts.setdefault("request_id", request_id)
    return facts


def _value(value: object) -> str:
    """Write a value so that it ends where it ends: quoted if it has spaces, quotes or line breaks."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


_FORMATTERS: Final = {"logfmt": LogfmtFormatter, "json": JsonFormatter}


def configure(level: str, form: str = "logfmt") -> None:
    """Send log lines of ``level`` and above to standard error, as ``logfmt`` or ``json``; libraries' from ``info`` on.

    Debug lines of libraries hold what they send: Kafka's client writes passwords and whole records.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[form]())
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("penstock").setLevel(number)
    for noisy in ("httpx", "httpcore", "httpx2", "httpcore2", "urllib3", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
