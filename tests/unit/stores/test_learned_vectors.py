"""Sparse vectors that say themselves what a term is worth stay so, whatever becomes of their shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.optimiser import optimise_shard
from penstock.stores.data_model import ArmQuery, ChunkPayload, Point
from tests.fakes.memory_store import sparse, unit

POINTS = [Point(ChunkPayload(f"d{n}", 0, "x"), unit(1, n), sparse(t1=2) if n else sparse(t2=2)) for n in range(50)]
QUERY = ArmQuery(sparse(t1=0.5, t2=0.5), 50)


@pytest.mark.parametrize("learned", [True, False])
def test_an_optimised_generation_weighs_as_the_one_before(tmp_path: Path, *, learned: bool) -> None:
    home = tmp_path / "shard"
    shard = Shard.create(home, 2, learned_sparse=learned)
    shard.upsert(POINTS)
    before = {one.point: one.score for one in shard.search_batch([QUERY])[0]}
    assert (set(before.values()) == {1.0}) is learned, "BM25 weighs the rare term more"
    shard.close()
    optimise_shard(home)
    shard = Shard.load(home)
    assert shard.learned_sparse is learned
    assert {one.point: one.score for one in shard.search_batch([QUERY])[0]} == pytest.approx(before)
    shard.close()
