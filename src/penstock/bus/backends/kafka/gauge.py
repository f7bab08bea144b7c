"""How full a channel is, about: asked of the broker now and then, counted on in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

#: A nearly full channel is looked at so often at most.
LOOK_S: Final = 0.1
#: One that is less than half full is looked at so often at least.
LOOK_CALM_S: Final = 1.0


class Gauge:
    """Lets records in while there is room.

    Kafka has no bound of its own, and what is in it changes under everybody's hands: so the bound is kept about.
    Between two looks this instance adds what it sends; what others send meanwhile comes on top.

    Args:
        capacity: Records that may be there.
        ask: Returns how many are.

    Bounds: ``capacity``, exceeded by what other instances send within ``LOOK_S`` (``LOOK_CALM_S`` below half).
    """

    def __init__(self, capacity: int, ask: Callable[[], Awaitable[int]]) -> None:
        self.capacity = capacity
        self._ask = ask
        self._seen = 0
        self._since = 0
        self._under_way = 0
        self._looked_s = -1e9
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Gauge {self._seen}+{self._since}+{self._under_way}/{self.capacity}>"

    @property
    def _about(self) -> int:
        return self._seen + self._since + self._under_way

    async def enter(self, within_s: float) -> bool:
        """Wait until there is room and take it; return whether there was. Who took it says when it has ``sent``.

        Raises:
            Unavailable: The broker cannot be asked.

        Cancellation: Nothing was taken.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        if loop.time() - self._looked_s > self._fresh_s():
            await self._look()
        while not self._take():
            wait_s = max(0.0, self._looked_s + LOOK_S - loop.time())
            if loop.time() + wait_s > until_s:
                # Once more at the end, unless the last look is that late already.
                await asyncio.sleep(max(0.0, until_s - loop.time()))
                await self._look()
                return self._take()
            await asyncio.sleep(wait_s)
            if loop.time() - self._looked_s >= LOOK_S:
                await self._look()
        return True

    def sent(self) -> None:
        """What took room is in the channel, or will never be."""
        self._under_way -= 1
        self._since += 1

    def _fresh_s(self) -> float:
        return LOOK_S if 2 * self._about > self.capacity else LOOK_CALM_S

    def _take(self) -> bool:
        if self._about >= self.capacity:
            return False
        self._under_way += 1
        return True

    async def _look(self) -> None:
        """Ask the broker; those who want to know meanwhile wait for the same answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._see())
        await asyncio.shield(self._looking)

    async def _see(self) -> None:
        before = self._since
        self._seen = await self._ask()
        # What is sent while the question is under way may be in the answer or not: better counted twice.
        self._since -= before
        self._looked_s = asyncio.get_running_loop().time()
