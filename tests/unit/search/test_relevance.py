import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.search.relevance import ndcg, recall

IDS = st.sampled_from([str(n) for n in range(12)])
GAINS = st.dictionaries(IDS, st.integers(0, 4).map(float))
RANKINGS = st.lists(IDS, unique=True)


def test_ndcg_of_a_worked_example():
    # Gains 3 2 3 0 1 2 by rank: DCG 6.861, ideal 3 3 2 2 1 0: 7.141 (log2 discount, linear gain).
    gains = {"a": 3, "b": 2, "c": 3, "d": 0, "e": 1, "f": 2}
    assert ndcg("abcdef", gains, 6) == pytest.approx(6.861126688593501 / 7.140995184095699)


def test_the_ideal_is_cut_at_k_too():
    assert ndcg(["a", "b"], {"a": 1, "b": 1, "c": 1}, 2) == 1


def test_a_relevant_document_at_rank_two_counts_less():
    assert ndcg(["x", "a"], {"a": 1}, 10) == pytest.approx(1 / math.log2(3))


def test_results_beyond_k_do_not_count():
    assert ndcg(["x", "a"], {"a": 1}, 1) == 0
    assert recall(["x", "a"], {"a": 1}, 1) == 0


def test_recall_is_the_share_of_the_relevant():
    assert recall(["a", "x", "b"], {"a": 1, "b": 2, "c": 1, "d": 0, "e": -1}, 3) == pytest.approx(2 / 3)


def test_a_repeated_document_counts_once():
    assert ndcg(["a", "a", "b"], {"a": 1, "b": 1}, 2) == 1
    assert recall(["a", "a", "b"], {"a": 1, "b": 1}, 2) == 1


def test_nothing_relevant_gives_nothing():
    assert ndcg(["a"], {}, 10) == recall(["a"], {}, 10) == ndcg([], {"a": 1}, 10) == recall([], {"a": 1}, 10) == 0


@pytest.mark.parametrize("measure", [ndcg, recall])
def test_k_must_be_positive(measure):
    with pytest.raises(ValueError, match="at least 1"):
        measure(["a"], {"a": 1}, 0)


@given(RANKINGS, GAINS, st.integers(1, 15))
def test_both_lie_between_0_and_1(ranking, gains, k):
    assert 0 <= ndcg(ranking, gains, k) <= 1 + 1e-12
    assert 0 <= recall(ranking, gains, k) <= 1


@given(GAINS, st.integers(1, 15))
def test_the_best_ranking_has_1(gains, k):
    best = sorted(gains, key=lambda document: -gains[document])
    if any(gain > 0 for gain in gains.values()):
        assert ndcg(best, gains, k) == pytest.approx(1)
        assert recall(best, gains, 12) == 1


@given(RANKINGS, GAINS)
def test_moving_a_better_document_up_never_hurts(ranking, gains):
    for upper in range(len(ranking) - 1):
        if gains.get(ranking[upper], 0) < gains.get(ranking[upper + 1], 0):
            better = ranking.copy()
            better[upper], better[upper + 1] = better[upper + 1], better[upper]
            assert ndcg(better, gains, 10) >= ndcg(ranking, gains, 10)
