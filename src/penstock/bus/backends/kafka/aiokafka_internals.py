"""aiokafka workarounds: count open connections, and cancel tasks that are stuck on a dead broker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

#: A record of one kind is written so often at most.
LOG_INTERVAL_S: Final = 10.0


class LogThrottle(logging.Filter):
    """Log filter that passes a record of each kind once per ``LOG_INTERVAL_S``, at level INFO at most.

    Every attempt to reach a dead broker is logged, and so is every broker that does not know a new topic yet. The
    library retries these by itself. What it cannot recover from is raised here, and the bus's breaker reports it.

    Args:
        logger: Decides whether INFO is enabled at all.
        now: A clock in seconds.

    Bounds: One entry for each kind of record, which is a format string in the library's source.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._logger = logger
        self._now = now
        self._last_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if not self._logger.isEnabledFor(logging.INFO):
            return False
        if record.levelno > logging.INFO:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        now_s, kind = self._now(), str(record.msg)
        if now_s - self._last_s.get(kind, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            return False
        self._last_s[kind] = now_s
        return True


def throttle_loggers(name: str) -> None:
    """Add the filter to all loaded loggers of a library; calling it again does no harm."""
    ours = logging.getLogger(__name__)
    for logger in [one for one in logging.root.manager.loggerDict if one == name or one.startswith(f"{name}.")]:
        found = logging.getLogger(logger)
        if not any(isinstance(one, LogThrottle) for one in found.filters):
            found.addFilter(LogThrottle(ours))


#: Where the library's clients keep their parts, and these their tasks. It has no name for either in public.
CLIENT_PARTS: Final = ("client", "_client", "_coordinator", "_fetcher", "_sender")
CLIENT_TASKS: Final = (
    "_coordination_task",
    "_heartbeat_task",
    "_commit_refresh_task",
    "_reset_committed_task",
    "_fetch_task",
    "_sender_task",
    "_sync_task",
)

#: How long cancelled tasks may take to end.
TASK_END_S: Final = 0.5


def count_connections(clients: Iterable[Any]) -> Counter[str]:
    """Return how many connections are open, by broker (L5)."""
    return Counter(
        f"{one.host}:{one.port}" for client in clients for one in _iter_connections(client) if one.connected()
    )


async def abort_clients(clients: Iterable[Any]) -> None:
    """Abort consumers, producers and other clients without notice to the broker; stopped ones have nothing left.

    Cancellation: Some may go on.
    """
    ended = list(clients)
    _close_connections(ended)  # tasks that wait for an answer fail now, and can end
    tasks = [task for client in ended for task in _iter_tasks(client)]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=TASK_END_S)
    _close_connections(ended)  # what a task has made before it ended
    for client in ended:
        client._closed = True  # noqa: SLF001 - else it complains of not having been stopped


def _close_connections(clients: Iterable[Any]) -> None:
    for client in clients:
        for connection in _iter_connections(client):
            connection.close()


def _iter_parts(client: Any) -> Iterator[Any]:
    yield client
    for name in CLIENT_PARTS:
        part = getattr(client, name, None)
        if part is not None:
            yield part


def _iter_tasks(client: Any) -> Iterator[asyncio.Task[Any]]:
    for part in _iter_parts(client):
        named = [getattr(part, name, None) for name in CLIENT_TASKS]
        for task in (*named, *getattr(part, "_pending_tasks", ())):
            if task is not None and not task.done():
                yield task


def _iter_connections(client: Any) -> Iterator[Any]:
    for part in _iter_parts(client):
        yield from list(getattr(part, "_conns", {}).values())
