"""Synthetic vectors, exact search over passing blocks, the table."""

import numpy as np
import pytest

from bench.scale.conduct import figures, table
from bench.scale.one import HITS, Exact
from bench.scale.synthetic import CHUNK_TERMS, DIM, World


def test_a_world_is_the_same_every_time_and_however_it_is_cut():
    first = np.concatenate([block.dense for block in World(3000).blocks(300, 100)])
    again = np.concatenate([block.dense for block in World(3000).blocks(300, 100)])
    assert np.array_equal(first, again)
    assert first.shape == (300, DIM)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(300), abs=1e-5)


def test_neighbours_are_nearer_than_others():
    (block,) = World(4000).blocks(2000, 2000)
    cosines = np.sort(block.dense @ block.dense.T, axis=1)
    assert 0.5 < np.median(cosines[:, -10]) < 0.95
    assert abs(np.median(cosines)) < 0.1


def test_terms_of_a_chunk_are_distinct_and_few_chunks_share_many():
    (block,) = World(1000).blocks(50, 50)
    assert all(len(set(one.indices.tolist())) == len(one.indices) <= CHUNK_TERMS for one in block.sparse)
    assert all(one.indices.dtype == np.uint32 and one.values.dtype == np.float32 for one in block.sparse)


def test_queries_weigh_every_term_the_same():
    assert {float(value) for one in World(1000).queries(20).sparse for value in one.values} == {1.0}


def test_blocks_that_pass_give_the_same_as_looking_at_everything():
    world = World(2000)
    asked = world.queries(5)
    exact, every = Exact(asked), []
    for block in world.blocks(700, 64):
        exact.look(block.dense)
        every.append(block.dense)
    best = np.argsort(-(asked.dense @ np.concatenate(every).T), axis=1)[:, :HITS]
    assert [set(rows) for rows in exact.best()] == [set(rows) for rows in best.tolist()]


def test_a_size_is_a_row_and_a_figure_has_its_unit():
    measured = {10_000: {"rescored, p50 ms": 1.234, "memory_mb": 210.4, "recall@10": 0.987}}
    head, _, row = table(measured).splitlines()
    assert head.startswith("| chunks | search, p50, ms |")
    assert row.startswith("| 10 000 | 1.23 |")
    found = {figure.name: figure for figure in figures(measured)}
    assert found["10 000 chunks, memory"].unit == "MB"
    assert found["10 000 chunks, recall@10"].value == 0.987
