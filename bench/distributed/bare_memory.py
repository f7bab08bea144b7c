"""A queue, a future and a timeout: request and reply in one process without a bus."""

from __future__ import annotations

import asyncio
from typing import Any

from bench.distributed.system import LIMIT_S, Place

Asked = tuple[Any, asyncio.Future[Any]]


class Within:
    """Asks by way of one ``asyncio.Queue``; as many tasks as there are slots answer.

    It bounds what waits and how long who waits. It counts nothing, knows neither classes nor clients, begins what can
    no longer end in time, and goes on with what nobody waits for.
    """

    def __init__(self, place: Place) -> None:
        self._slots = place.slots
        self._queue: asyncio.Queue[Asked] = asyncio.Queue(1000)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        self._tasks = [asyncio.create_task(self._answer()) for _ in range(self._slots)]

    async def ready(self, answerers: int) -> bool:
        """See :class:`bench.distributed.system.Asker`."""
        return not answerers

    async def ask(self, message: Any, caller: int) -> Any:  # noqa: ARG002 - it knows no clients
        """See :class:`bench.distributed.system.Asker`."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(LIMIT_S):
            await self._queue.put((message, reply))
            return await reply

    async def close(self) -> None:
        """See :class:`bench.distributed.system.Asker`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self) -> None:
        while True:
            message, reply = await self._queue.get()
            if not reply.done():
                reply.set_result(message)
