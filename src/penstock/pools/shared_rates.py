"""Background exchange of leased tokens with the shared buckets, so that the gate never waits for them."""

from __future__ import annotations

import asyncio
from typing import Final

from penstock.kernel.context import Clock
from penstock.kernel.errors import PenstockError
from penstock.policies.bucket import RateSettings
from penstock.policies.token_leases import LeasedLimiter
from penstock.pools.guard import Guard
from penstock.stores.store_service import SharedTokenBuckets

#: Least time between two exchanges: requests in between go into one.
EXCHANGE_INTERVAL_S: Final = 0.005

#: How often it is tried whether the shared buckets can be reached again.
PROBE_S: Final = 0.5

#: Clients asked for in one exchange.
CLIENTS_PER_EXCHANGE: Final = 500


class SharedRates:
    """Supplies a :class:`penstock.policies.token_leases.LeasedLimiter` with tokens. ``start`` it, ``close`` it.

    Args:
        settings: Rate, burst and bound.
        source: The shared buckets.
        guard: Their breaker: while it is open each server decides alone.
        clock: The loop's clock.

    Bounds: one task, one exchange at a time of ``CLIENTS_PER_EXCHANGE`` clients.
    """

    def __init__(self, settings: RateSettings, source: SharedTokenBuckets, guard: Guard, clock: Clock) -> None:
        self.limiter = LeasedLimiter(settings)
        self._settings = settings
        self._source = source
        self._guard = guard
        self._clock = clock
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.limiter.on_request = self._wake.set

    def __repr__(self) -> str:
        return f"<SharedRates {self.limiter!r}>"

    def start(self) -> None:
        """Begin to fetch, on the running loop."""
        self._task = asyncio.create_task(self._run(), name="shared rates")

    async def close(self) -> None:
        """Stop; what is on lease is not given back, its buckets fill by themselves."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def sweep(self) -> None:
        """Give back what is not used; for the heartbeat."""
        self.limiter.sweep(self._clock.now())

    async def _run(self) -> None:
        while True:
            if self.limiter.is_isolated:
                await asyncio.sleep(PROBE_S)
            else:
                await self._wake.wait()
            self._wake.clear()
            await self._exchange()
            await asyncio.sleep(EXCHANGE_INTERVAL_S)

    async def _exchange(self) -> None:
        limiter, settings = self.limiter, self._settings
        asks = [] if limiter.is_isolated else limiter.pending_requests(self._clock.now(), CLIENTS_PER_EXCHANGE)
        try:
            grants = await self._guard.call("rates", lambda: self._source.reserve(asks, settings.rate, settings.burst))
        except PenstockError:
            limiter.failed()
        else:
            limiter.granted(asks, grants, self._clock.now())
            if len(asks) == CLIENTS_PER_EXCHANGE:
                self._wake.set()
