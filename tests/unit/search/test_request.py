import math

import msgspec
import pytest

from penstock.kernel.errors import Invalid
from penstock.kernel.records import NullAsDefault, OrNull
from penstock.search.request import LIMIT_MAX, WEIGHT_MAX, ArmWeights, SearchRequest


@pytest.mark.parametrize("limit", [1, LIMIT_MAX])
def test_a_sound_request_passes(limit):
    SearchRequest("c", query="q", limit=limit).check()


@pytest.mark.parametrize("query", ["", " ", "\n\t\u00a0"])
def test_a_blank_query_is_refused(query):
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", query=query).check()
    assert (caught.value.field, caught.value.code) == ("query", "empty_query")


@pytest.mark.parametrize("limit", [0, -1, LIMIT_MAX + 1, 10**9, 10**30])
def test_a_limit_out_of_bounds_is_refused(limit):
    with pytest.raises(Invalid, match="between 1 and 1000") as caught:
        SearchRequest("c", query="q", limit=limit).check()
    assert caught.value.field == "limit"


@pytest.mark.parametrize("arm", ["dense", "sparse"])
@pytest.mark.parametrize("weight", [math.nan, math.inf, -1, WEIGHT_MAX + 1])
def test_a_weight_must_be_finite_and_in_bounds(arm, weight):
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", query="q", weights=ArmWeights(**{arm: weight})).check()
    assert caught.value.field == f"weights.{arm}"


def test_one_arm_must_count():
    with pytest.raises(Invalid) as caught:
        SearchRequest("c", query="q", weights=ArmWeights(0, 0)).check()
    assert caught.value.field == "weights"


class Wishes(NullAsDefault, frozen=True):
    words: OrNull[list[str]] = msgspec.field(default_factory=list)
    limit: OrNull[int] = 10
    note: str | None = None


def test_null_for_an_optional_field_is_its_default_and_no_two_records_share_it() -> None:
    text = b'{"words": null, "limit": null, "note": null}'
    one, other = (msgspec.json.decode(text, type=Wishes) for _ in range(2))
    assert one == Wishes([], 10, None)
    assert one.words is not other.words
