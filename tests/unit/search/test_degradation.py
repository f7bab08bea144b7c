"""What each rung takes from which request."""

import pytest

from penstock.kernel.errors import Rejected
from penstock.kernel.settings import SearchSettings
from penstock.policies.ladder import Rung
from penstock.ranking.retrieval import Arm
from penstock.search import degradation
from penstock.search.degradation import SINGLE_ARM, SearchPlan, plan_search
from penstock.search.request import ArmWeights, SearchRequest

BOTH = (Arm.DENSE, Arm.SPARSE)
SETTINGS = SearchSettings()


def planned(rung: Rung, **wishes) -> SearchPlan:
    return plan_search(SearchRequest("c", query="cat", **wishes), rung, SETTINGS)


def test_at_the_foot_of_the_ladder_everything_is_done():
    assert planned(Rung.FULL) == SearchPlan(BOTH, 64, rerank=True)
    assert planned(Rung.FULL, rerank=False, limit=500) == SearchPlan(BOTH, 64, rerank=False)
    assert planned(Rung.FULL, weights=ArmWeights(sparse=0)) == SearchPlan((Arm.DENSE,), 64, rerank=True)


def test_each_rung_takes_more():
    assert planned(Rung.FEWER_CANDIDATES) == SearchPlan(BOTH, 30, rerank=True, degraded_word="rerank_reduced")
    assert planned(Rung.NO_RERANK) == SearchPlan(BOTH, 30, rerank=False, degraded_word="no_rerank")
    assert planned(Rung.ONE_ARM) == SearchPlan(
        (Arm.SPARSE,), 30, rerank=False, fallback_arm=Arm.DENSE, degraded_word="one_arm"
    )
    assert planned(Rung.CACHED_ONLY) == SearchPlan((), 30, rerank=False, from_cache=True)
    with pytest.raises(Rejected) as caught:
        planned(Rung.REFUSE)
    assert caught.value.code == "overloaded"


def test_words_alone_are_searched_where_the_dense_model_does_not_know_the_letters():
    def unread(rung, **wishes):
        return plan_search(SearchRequest("c", query="茶叶", **wishes), rung, SETTINGS, dense_reads=False)

    words = SearchPlan((Arm.SPARSE,), 64, rerank=False, fallback_arm=Arm.DENSE)
    assert unread(Rung.FULL) == unread(Rung.NO_RERANK, strict=True) == unread(Rung.ONE_ARM) == words
    assert unread(Rung.FULL, weights=ArmWeights(dense=2)).arms == BOTH
    assert unread(Rung.CACHED_ONLY).from_cache


def test_the_arm_that_is_kept_needs_no_model():
    assert SINGLE_ARM is Arm.SPARSE


def test_how_many_hits_are_wanted_changes_no_candidates():
    assert planned(Rung.NO_RERANK, limit=80).candidates == 30


def test_fewer_candidates_are_never_more_than_usual():
    few = SearchSettings(candidates=20, candidates_reduced=30)
    assert plan_search(SearchRequest("c", query="cat"), Rung.NO_RERANK, few).candidates == 20
    assert plan_search(SearchRequest("c", query="cat"), Rung.FEWER_CANDIDATES, few) == SearchPlan(BOTH, 20, rerank=True)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("wishes", "harmless"),
    [
        ({"rerank": False}, Rung.NO_RERANK),
        ({"weights": ArmWeights(dense=0)}, Rung.ONE_ARM),
        ({"weights": ArmWeights(sparse=0)}, Rung.ONE_ARM),
    ],
)
def test_a_rung_that_takes_nothing_from_a_request_leaves_it_whole(wishes, harmless, strict):
    for rung in Rung:
        if rung <= harmless:
            assert planned(rung, strict=strict, **wishes) == planned(Rung.FULL, **wishes)
        elif strict:
            with pytest.raises(Rejected):
                planned(rung, strict=True, **wishes)
        elif rung is not Rung.REFUSE:
            assert planned(rung, **wishes) != planned(Rung.FULL, **wishes)


@pytest.mark.parametrize("rung", [rung for rung in Rung if Rung.FULL < rung < Rung.REFUSE])
def test_a_strict_request_is_rather_refused_than_degraded(rung):
    with pytest.raises(Rejected) as caught:
        planned(rung, strict=True)
    assert (caught.value.code, caught.value.by_client) == ("degraded", False)
    assert rung.label in caught.value.detail


def test_a_strict_request_at_the_end_of_the_ladder_is_refused_like_all():
    with pytest.raises(Rejected) as caught:
        planned(Rung.REFUSE, strict=True)
    assert caught.value.code == "overloaded"


def test_every_word_is_explained():
    words = {
        getattr(degradation, name) for name in ("QUERY_TRUNCATED", "RERANK_REDUCED", "NO_RERANK", "ONE_ARM", "CACHED")
    }
    words |= {degradation.failed_arm_word(arm) for arm in Arm}
    assert degradation.__doc__ is not None
    for word in words:
        assert f"``{word}``" in degradation.__doc__
