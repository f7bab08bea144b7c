"""A circuit breaker for each dependency, and what is kept behind that of the shared Redis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from penstock.core.parts import Parts
from penstock.kernel.settings import TimeoutSettings
from penstock.policies.bucket import RateSettings
from penstock.pools.guard import Guard
from penstock.pools.layered import LayeredCache
from penstock.pools.shared_rates import SharedRates
from penstock.stores.cache import Cache

#: The dependency that holds what several servers share, and after how long it counts as hanging.
SHARED: Final = "redis-shared"
SHARED_S: Final = 0.05


def patience(timeouts: TimeoutSettings) -> dict[str, float]:
    """Return each dependency's name and after how many seconds it counts as hanging: half of the least a caller has.

    A search is cut off at its own limit; were the patience with a model longer, a model that hangs would never be found
    out by searches.
    """
    return {
        "store": min(timeouts.store, timeouts.search) / 2,
        "embed": min(timeouts.embed, timeouts.search) / 2,
        "sparse": min(timeouts.embed, timeouts.search) / 2,
        "rerank": timeouts.rerank / 2,
    }


def guards(parts: Parts) -> dict[str, Guard]:
    """Return each dependency's guard, by its name."""
    settings, waits = parts.settings, patience(parts.settings.timeouts)
    if settings.redis.shared:
        waits |= {SHARED: SHARED_S}
    return {
        name: Guard(name, settings.breaker, parts.clock, patience_s=patience_s, random=parts.luck)
        for name, patience_s in waits.items()
    }


def caches(parts: Parts, guards: Mapping[str, Guard]) -> dict[str, Cache]:
    """Return what is remembered (L1, L2, and the ladder's answers), and what of it is shared with other servers.

    BM25 vectors are not: they are made in less time than it takes to ask for them.
    """
    cache = parts.settings.cache
    made = {
        "embed": parts.cache("embed", cache.embed_size, cache.embed_bytes, math.inf),
        "sparse": parts.cache("sparse", cache.sparse_size, cache.sparse_bytes, math.inf),
        "answers": parts.cache("answers", cache.answer_size, cache.answer_bytes, cache.answer_ttl),
    }
    for name in ("embed", *(["sparse"] if parts.encoders.learned else [])):
        far = parts.shared_cache(f"{name}-shared")
        if far is not None:
            made |= {name: LayeredCache(made[name], far, guards[SHARED]), f"{name}-shared": far}
    return made


def shared_rates(parts: Parts, guards: Mapping[str, Guard]) -> SharedRates | None:
    """Return what holds clients to one rate over all servers, where that is wanted and there is a rate."""
    http, source = parts.settings.http, parts.shared_rates
    if source is None or not http.rate_limit:
        return None
    return SharedRates(RateSettings(http.rate_limit, http.rate_burst), source, guards[SHARED], parts.clock)
