"""What an indexed generation finds, against looking at everything."""

import numpy as np
import pytest

from penstock.kernel.context import point_id
from penstock.stores.backends.edge import engine_config
from penstock.stores.backends.edge.engine import Shard
from penstock.stores.backends.edge.optimiser import optimise_shard
from penstock.stores.data_model import ArmQuery, ChunkPayload, Point
from tests.fakes.memory_store import sparse

DIM, POINTS = 32, 1500


@pytest.fixture
def vectors():
    made = np.random.default_rng(1).normal(size=(POINTS + 20, DIM)).astype("f4")
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def shard(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(engine_config, "INDEXING_KB", 10)
    monkeypatch.setattr(engine_config, "FULL_SCAN_KB", 10)
    shard = Shard.create(tmp_path / "shard", DIM)
    points = [Point(ChunkPayload(f"d{n}", 0, "x"), vectors[n], sparse(t1=1)) for n in range(POINTS)]
    shard.upsert(points)
    shard.close()
    optimise_shard(tmp_path / "shard")
    assert list((tmp_path / "shard").rglob("vector_storage-dense/quantized.data"))
    shard = Shard.load(tmp_path / "shard")
    yield shard
    shard.close()


def ask(shard, query, limit, among=None):
    [found] = shard.search_batch([ArmQuery(query, limit, among=among)])
    return found


def test_a_graph_over_bytes_finds_nearly_everything_and_scores_it_exactly(shard, vectors):
    ids = [point_id(f"d{n}", 0) for n in range(POINTS)]
    hits = 0
    for query in vectors[POINTS:]:
        exact = vectors[:POINTS] @ query
        best = {ids[n]: float(exact[n]) for n in np.argsort(-exact)[:10]}
        found = {scored.point: scored.score for scored in ask(shard, query, 10)}
        assert found == pytest.approx({place: exact[ids.index(place)] for place in found}, abs=1e-5)
        hits += len(best.keys() & found.keys())
    assert hits / 200 >= 0.97


def test_candidates_are_scored_exactly_though_the_graph_is_over_bytes(shard, vectors):
    wanted = [point_id(f"d{n}", 0) for n in range(0, POINTS, 20)]
    query = vectors[POINTS]
    found = {scored.point: scored.score for scored in ask(shard, query, len(wanted), wanted)}
    exact = {place: float(vectors[20 * n] @ query) for n, place in enumerate(wanted)}
    assert found == pytest.approx(exact, abs=1e-5)
