import math

import pytest

from penstock.kernel.errors import Invalid
from penstock.search.records import LIMIT_MAX, WEIGHT_MAX, SearchRequest, Weights


@pytest.mark.parametrize("limit", [1, LIMIT_MAX])
def test_a_sound_request_passes(limit):
    SearchRequest("c", "q", limit).check()


@pytest.mark.parametrize("query", ["", " ", "\n\t\u00a0"])
def test_a_blank_query_is_refused(query):
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", query).check()
    assert (caught.value.field, caught.value.code) == ("query", "empty_query")


@pytest.mark.parametrize("limit", [0, -1, LIMIT_MAX + 1, 10**9, 10**30])
def test_a_limit_out_of_bounds_is_refused(limit):
    with pytest.raises(Invalid, match="between 1 and 1000") as caught:
        SearchRequest("c", "q", limit).check()
    assert caught.value.field == "limit"


@pytest.mark.parametrize("arm", ["dense", "sparse"])
@pytest.mark.parametrize("weight", [math.nan, math.inf, -1, WEIGHT_MAX + 1])
def test_a_weight_must_be_finite_and_in_bounds(arm, weight):
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", "q", weights=Weights(**{arm: weight})).check()
    assert caught.value.field == f"weights.{arm}"


def test_one_arm_must_count():
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", "q", weights=Weights(0, 0)).check()
    assert caught.value.field == "weights"
