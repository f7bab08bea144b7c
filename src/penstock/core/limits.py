"""The limits toward dependencies that are other servers; the pools that ask them follow.

So what such a server cannot take now waits in its topic, in the topic's order, where it can be seen and refused.
"""

from __future__ import annotations

from typing import Final

from penstock.core.parts import Parts
from penstock.policies.limit import LimitSettings
from penstock.policies.retry import RetrySettings
from penstock.pools.guard import Guard
from penstock.pools.house import Pools
from penstock.pools.permits import Permits
from penstock.pools.remote import Remote

#: Calls to a store that is another server that may always be out, however slow it is: enough for a few searches.
STORE_CALLS_MIN: Final = 8


def remote(name: str, parts: Parts, guard: Guard, pools: Pools) -> Remote:
    """Return the limit toward a model, or the store, that is another server.

    Args:
        name: ``embed``, ``sparse``, ``rerank`` or ``store``.
        parts: What the core stands on.
        guard: The dependency's.
        pools: The permits, which follow the limit.
    """
    if name == "store":
        return _store(parts, guard, pools)
    permits: Permits = getattr(pools, name)
    most = permits.limit
    limits = LimitSettings(initial=min(LimitSettings().initial, most), ceiling=most)
    made = Remote(guard, parts.clock, limits=limits, retries=RetrySettings(), random=parts.luck)
    made.on_limit = permits.resize
    permits.resize(made.limit)
    return made


def _store(parts: Parts, guard: Guard, pools: Pools) -> Remote:
    """Return the limit toward a store: searches and writes get permits as it moves.

    Half of the places are for searches, a quarter for writes; second arms, listings and all else share the rest.
    """
    settings, most = parts.settings, parts.settings.qdrant.pool_size
    limits = LimitSettings(initial=max(1, most // 2), floor=min(STORE_CALLS_MIN, max(1, most // 2)), ceiling=most)

    def share(limit: int) -> None:
        pools.search.resize(max(1, min(settings.search.workers, limit // 2)))
        pools.index.resize(max(1, min(settings.index.workers, limit // 4)))

    made = Remote(guard, parts.clock, limits=limits, retries=RetrySettings(), random=parts.luck)
    made.on_limit = share
    share(made.limit)
    return made
