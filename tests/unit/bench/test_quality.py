"""Scores by query become figures with intervals."""

import pytest

from bench.quality import NDCG, Scores, figures, peers, scored
from penstock.cli.beir import Benchmark, CorpusDocument, Query


def _benchmark():
    documents = [CorpusDocument(str(number), "text") for number in range(3)]
    return Benchmark("cisi", documents, [Query("a", "?"), Query("b", "?")], {"a": {"0": 1.0}, "b": {"2": 1.0}})


def _scores():
    arms = {
        "sparse": {"a": ["1", "0"], "b": ["2"]},
        "dense": {"a": ["0"], "b": ["2"]},
        "hybrid": {"a": ["0"], "b": ["1", "2"]},
        "default": {"a": ["0"], "b": ["2"]},
    }
    return scored(_benchmark(), arms)


def test_every_query_has_a_score_of_every_arm():
    found = _scores()
    assert found.by_measure[NDCG]["sparse"] == pytest.approx([0.6309, 1.0], abs=1e-4)
    assert found.by_measure[NDCG]["default"] == [1.0, 1.0]


def test_the_better_arm_is_the_one_of_higher_ndcg():
    assert _scores().better == "dense"
    assert _scores().gain(NDCG, "default", "sparse").mean == pytest.approx(0.1845, abs=1e-4)


def test_the_default_is_held_against_its_goals():
    found = {figure.name: figure for figure in figures([_scores()])}
    assert found["cisi, default, nDCG@10"].goal == "≥ 0.46"
    assert found["cisi, default, nDCG@10"].met
    assert found["cisi, default - dense, nDCG@10"].met
    assert found["cisi, dense, nDCG@10"].met is None


def test_a_collection_without_a_goal_is_not_judged():
    other = Scores("other", 3, _scores().by_measure)
    assert {figure.met for figure in figures([other]) if figure.name == "other, default, nDCG@10"} == {None}


def test_the_arms_are_the_peers():
    assert set(peers([_scores()])) == {"sparse", "dense", "hybrid"}
