"""Circuit breakers of the dependencies, the store's health check, and caches and rates of the shared Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from penstock.core.dependencies import Dependencies
from penstock.kernel.context import Clock, Context, enforce_deadline
from penstock.kernel.errors import PenstockError
from penstock.kernel.settings import TimeoutSettings
from penstock.policies.breaker import BreakerState
from penstock.policies.bucket import RateSettings
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.guard import Guard
from penstock.pools.layered_cache import LayeredCache
from penstock.pools.permits import Permits, PoolRegistry
from penstock.pools.remote_dependency import RemoteDependency
from penstock.pools.shared_rates import SharedRates
from penstock.stores.key_value_cache import KeyValueCache
from penstock.stores.memory_cache import MemoryCache

#: Lowest limit of concurrent calls to a store on another server, however slow it is. Enough for a few searches.
STORE_CALLS_MIN: Final = 8


def build_remote(name: str, deps: Dependencies, guard: Guard, pools: PoolRegistry) -> RemoteDependency:
    """Return the limit toward a model, or the store, that is another server."""
    if name == "store":
        return _build_store_remote(deps, guard, pools)
    permits: Permits = getattr(pools, name)
    most = permits.limit
    limits = LimitSettings(initial=min(LimitSettings().initial, most), ceiling=most)
    made = RemoteDependency(guard, deps.clock, limits=limits, retries=RetrySettings(), random=deps.rng)
    made.on_limit = permits.resize
    permits.resize(made.limit)
    return made


def _build_store_remote(parts: Dependencies, guard: Guard, pools: PoolRegistry) -> RemoteDependency:
    """Return the limit toward a store: searches and writes get permits as it moves.

    Half of the places are for searches, a quarter for writes; second arms, listings and all else share the rest.
    """
    settings, most = parts.settings, parts.settings.qdrant.pool_size
    limits = LimitSettings(initial=max(1, most // 2), floor=min(STORE_CALLS_MIN, max(1, most // 2)), ceiling=most)

    def share(limit: int) -> None:
        pools.search.resize(max(1, min(settings.search.workers, limit // 2)))
        pools.index.resize(max(1, min(settings.index.workers, limit // 4)))

    made = RemoteDependency(guard, parts.clock, limits=limits, retries=RetrySettings(), random=parts.rng)
    made.on_limit = share
    share(made.limit)
    return made


#: The dependency that holds what several servers share, and after how long it counts as hanging.
SHARED_REDIS: Final = "redis-shared"
SHARED_REDIS_TIMEOUT_S: Final = 0.05


def hang_timeouts(timeouts: TimeoutSettings) -> dict[str, float]:
    """Return each dependency's name and after how many seconds it counts as hanging: half of the least a caller has.

    A search ends at its own time limit. If the timeout of a model were longer, searches would never detect a model that
    hangs.
    """
    return {
        "store": min(timeouts.store, timeouts.search) / 2,
        "embed": min(timeouts.embed, timeouts.search) / 2,
        "sparse": min(timeouts.embed, timeouts.search) / 2,
        "rerank": timeouts.rerank / 2,
    }


def build_guards(deps: Dependencies) -> dict[str, Guard]:
    """Return each dependency's guard, by its name."""
    settings, waits = deps.settings, hang_timeouts(deps.settings.timeouts)
    if settings.redis.uses_shared_redis:
        waits |= {SHARED_REDIS: SHARED_REDIS_TIMEOUT_S}
    return {
        name: Guard(name, settings.breaker, deps.clock, patience_s=patience_s, random=deps.rng)
        for name, patience_s in waits.items()
    }


def build_caches(deps: Dependencies, guards: Mapping[str, Guard]) -> dict[str, KeyValueCache]:
    """Return the caches (L1, L2, and the ladder's results), and those of them that are shared with other servers.

    BM25 vectors are not shared, since making one takes less time than asking for it.
    """
    cache = deps.settings.cache
    made: dict[str, KeyValueCache] = {
        "embed": MemoryCache("embed", cache.embed_size, cache.embed_bytes, deps.clock),
        "sparse": MemoryCache("sparse", cache.sparse_size, cache.sparse_bytes, deps.clock),
        "answers": MemoryCache("answers", cache.answer_size, cache.answer_bytes, deps.clock, cache.answer_ttl),
    }
    for name in ("embed", *(["sparse"] if deps.models.learned_sparse_model else [])):
        far = deps.make_shared_cache(f"{name}-shared")
        if far is not None:
            made |= {name: LayeredCache(made[name], far, guards[SHARED_REDIS]), f"{name}-shared": far}
    return made


def build_shared_rates(deps: Dependencies, guards: Mapping[str, Guard]) -> SharedRates | None:
    """Return the rate limiter that all servers share, ``None`` where rates are not shared or not limited."""
    http, source = deps.settings.http, deps.token_buckets
    if source is None or not http.rate_limit:
        return None
    return SharedRates(RateSettings(http.rate_limit, http.rate_burst), source, guards[SHARED_REDIS], deps.clock)


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
