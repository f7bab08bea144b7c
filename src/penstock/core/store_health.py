"""Health check of the store, run even while this process sends it no traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from penstock.kernel.context import Clock, Context, enforce_deadline
from penstock.kernel.errors import PenstockError
from penstock.policies.breaker import BreakerState
from penstock.pools.guard import Guard

#: Name of the probe among the operations of the store.
PROBE_OPERATION = "look"


class StoreHealthCheck:
    """Probes the store through its breaker, so that readiness, alerts and metrics notice an unreachable store.

    An API server whose searches run in workers would not notice it otherwise.

    Args:
        probe: Sends the store a cheap request.
        guard: The store's breaker. While it is open no probe is sent.
        clock: The loop's clock.
        always: Whether the store is probed all the time. Otherwise it is probed only while its breaker is not closed,
            so that a local store becomes ready again although no requests reach a server that is not ready.

    Bounds: one probe at a time, each within the breaker's timeout.
    """

    def __init__(
        self, probe: Callable[[Context], Awaitable[None]], guard: Guard, clock: Clock, *, always: bool = True
    ) -> None:
        self._probe = probe
        self._guard = guard
        self._clock = clock
        self._always = always
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<StoreHealthCheck of {self._guard!r}>"

    def poll(self) -> None:
        """Start a probe unless one is running. Call it periodically, inside the running loop."""
        if not self._always and self._guard.state is BreakerState.CLOSED:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="store pulse")

    async def close(self) -> None:
        """Cancel the running probe."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        ctx = Context.background().within(self._guard.patience_s(PROBE_OPERATION), PROBE_OPERATION, self._clock.now())
        # The breaker has recorded the failure and reports it.
        with suppress(PenstockError):
            await self._guard.call(PROBE_OPERATION, lambda: self._probe_in_time(ctx))

    async def _probe_in_time(self, ctx: Context) -> None:
        async with enforce_deadline(ctx.deadline):
            await self._probe(ctx)
