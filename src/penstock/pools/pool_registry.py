"""The pools of SPEC §2, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.kernel.settings import Settings
from penstock.pools.permits import Budget, Permits

#: Every pool that works on a topic (SPEC P1–P7).
POOL_NAMES: Final = frozenset({"embed", "sparse", "rerank", "search", "index", "chunk"})


class PoolRegistry:
    """The permits of SPEC §2 by name, ML pools over one budget.

    Args:
        settings: Their sizes.

    Attributes:
        ml_budget: The budget shared by the ML pools (P4).
    """

    def __init__(self, settings: Settings) -> None:
        ml = settings.ml
        budget = self.ml_budget = Budget(ml.max_inflight)
        # Half of them are kept from bulk work: a query must not wait until a batch of chunks has ended.
        self.embed = Permits("embed", ml.embed_workers, budget, reserved=ml.embed_workers // 2)
        self.sparse = Permits("sparse", ml.sparse_workers, budget, reserved=ml.sparse_workers // 2)
        self.rerank = Permits("rerank", ml.rerank_workers, budget)
        self.search = Permits("search", settings.search.workers)
        self.index = Permits("index", settings.index.workers)
        self.chunk = Permits("chunk", settings.index.chunk_workers)

    def all(self) -> Sequence[Permits]:
        """Return every pool's permits."""
        return (self.embed, self.sparse, self.rerank, self.search, self.index, self.chunk)
