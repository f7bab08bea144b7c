"""Whether the store is there, asked also while nobody searches or writes here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from penstock.kernel.clock import Clock
from penstock.kernel.context import Context
from penstock.kernel.deadline import limit
from penstock.kernel.errors import PenstockError
from penstock.policies.breaker import State
from penstock.pools.guard import Guard

#: What it is called among the operations of the store.
LOOK = "look"


class Pulse:
    """Feels the store's pulse through its breaker, so that readiness, alerts and metrics know of a store that is away.

    An API whose searches are done by workers would find it out by nothing else.

    Args:
        look: Asks the store something cheap.
        guard: Its breaker: while it is open nothing is asked.
        clock: The loop's clock.
        always: Whether it is asked again and again; else only while its breaker is not closed, so that a store of this
            machine is ready again though requests are kept away from a server that is not.

    Bounds: one question at a time, each within the breaker's patience.
    """

    def __init__(
        self, look: Callable[[Context], Awaitable[None]], guard: Guard, clock: Clock, *, always: bool = True
    ) -> None:
        self._look = look
        self._guard = guard
        self._clock = clock
        self._always = always
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Pulse of {self._guard!r}>"

    def feel(self) -> None:
        """Ask, unless a question is out; call it again and again, inside the running loop."""
        if not self._always and self._guard.state is State.CLOSED:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="store pulse")

    async def close(self) -> None:
        """Give up the question that is out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        ctx = Context.background().within(self._guard.patience_s(LOOK), LOOK, self._clock.now())
        # The breaker has been told, and tells it on.
        with suppress(PenstockError):
            await self._guard.call(LOOK, lambda: self._answered(ctx))

    async def _answered(self, ctx: Context) -> None:
        async with limit(ctx.deadline):
            await self._look(ctx)
