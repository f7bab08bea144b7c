"""The pools of SPEC §2 by name."""

from __future__ import annotations

from penstock.kernel.context import Criticality
from penstock.kernel.settings import MlSettings, Settings
from penstock.pools.permits import PoolRegistry


def test_each_pool_has_the_size_of_its_setting() -> None:
    sizes = {pool.name: pool.limit for pool in PoolRegistry(Settings()).all()}
    assert sizes == {"embed": 4, "sparse": 4, "rerank": 2, "search": 16, "index": 8, "chunk": 4}


def test_bulk_work_leaves_half_of_the_embed_pool_to_queries() -> None:
    embed = PoolRegistry(Settings()).embed
    while embed.try_acquire(Criticality.BULK):
        pass
    assert embed.active == 2
    assert embed.try_acquire(Criticality.INTERACTIVE)


def test_the_ml_pools_borrow_from_one_budget_and_no_other_does() -> None:
    pools = PoolRegistry(Settings(ml=MlSettings(max_inflight=5)))
    for pool in pools.all():
        while pool.try_acquire():
            pass
    assert (pools.ml_budget.used, pools.ml_budget.total) == (5, 5)
    assert pools.embed.active + pools.sparse.active + pools.rerank.active == 5
    assert [pool.active for pool in (pools.search, pools.index, pools.chunk)] == [16, 8, 4]
    pools.ml_budget.resize(8)
    assert pools.sparse.try_acquire()
