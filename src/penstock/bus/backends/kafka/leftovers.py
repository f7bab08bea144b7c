"""What the library has under way: its connections, counted; its tasks, ended where it would wait for a dead broker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

#: Where the library's clients keep their parts, and these their tasks. It has no name for either in public.
PARTS: Final = ("client", "_client", "_coordinator", "_fetcher", "_sender")
TASKS: Final = (
    "_coordination_task",
    "_heartbeat_task",
    "_commit_refresh_task",
    "_reset_committed_task",
    "_fetch_task",
    "_sender_task",
    "_sync_task",
)

#: How long tasks may take to end once nobody answers them any more.
END_S: Final = 0.5


def connections(clients: Iterable[Any]) -> Counter[str]:
    """Return how many connections are open, by broker (L5)."""
    return Counter(f"{one.host}:{one.port}" for client in clients for one in _connections(client) if one.connected())


async def cut(clients: Iterable[Any]) -> None:
    """End consumers, producers and the like without a word to the broker; those that were stopped have nothing left.

    Cancellation: Some may go on.
    """
    ended = list(clients)
    _hang_up(ended)  # whoever waits for an answer fails now, and can end
    tasks = [task for client in ended for task in _tasks(client)]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)
    _hang_up(ended)  # what a task has made before it ended
    for client in ended:
        client._closed = True  # noqa: SLF001 - else it complains of not having been stopped


def _hang_up(clients: Iterable[Any]) -> None:
    for client in clients:
        for connection in _connections(client):
            connection.close()


def _parts(client: Any) -> Iterator[Any]:
    yield client
    for name in PARTS:
        part = getattr(client, name, None)
        if part is not None:
            yield part


def _tasks(client: Any) -> Iterator[asyncio.Task[Any]]:
    for part in _parts(client):
        named = [getattr(part, name, None) for name in TASKS]
        for task in (*named, *getattr(part, "_pending_tasks", ())):
            if task is not None and not task.done():
                yield task


def _connections(client: Any) -> Iterator[Any]:
    for part in _parts(client):
        yield from list(getattr(part, "_conns", {}).values())
