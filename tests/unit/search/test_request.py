import math

import msgspec
import pytest

from penstock.kernel.errors import Invalid
from penstock.kernel.records import NullAsDefault, OrNull
from penstock.search.request import (
    COLLECTIONS_MAX,
    DEFAULT_COLLECTION,
    FACET_CHARACTERS_MAX,
    FACETS_MAX,
    LIMIT_MAX,
    QUERY_CHARACTERS_MAX,
    WEIGHT_MAX,
    ArmWeights,
    SearchBody,
    SearchRequest,
)
from penstock.stores.data_model import Match


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


def asked(collection: str | None = None, **fields) -> SearchRequest:
    return SearchRequest.from_body(msgspec.convert(fields, SearchBody), collection, str.lower)


def test_a_body_becomes_a_request_of_its_collection():
    assert asked("c", query="q").names == ("c",)
    assert asked(query="q").names == (DEFAULT_COLLECTION,)
    request = asked("c", query="q", filter={"language": "Go"}, offset=2.0, limit=3.0)
    assert (request.offset, type(request.offset), type(request.limit)) == (2, int, int)
    assert request.filter == (Match("language", ["go"]),)
    assert asked("c", query="q" * 20_000).query == "q" * (QUERY_CHARACTERS_MAX + 1)


def test_several_collections_are_one_field_of_the_message():
    request = asked(query="q", collections=["c", "d"])
    assert (request.collection, request.collections, request.names) == ("c,d,", ("c", "d"), ("c", "d"))
    assert asked(query="q", collections=["c"]).collections == ("c",)
    assert asked("c", query="q").collections == ()


@pytest.mark.parametrize(
    ("collection", "collections", "field"),
    [
        ("c", ["d"], "collections"),
        (None, [], "collections"),
        (None, ["c", "c"], "collections"),
        (None, [f"c{n}" for n in range(COLLECTIONS_MAX + 1)], "collections"),
        (None, ["a,b"], "collection"),
        ("a,b,", None, "collection"),
        ("x" * 65, None, "collection"),
    ],
)
def test_collections_that_cannot_be_searched_together_are_refused(collection, collections, field):
    with pytest.raises(Invalid) as caught:
        asked(collection, query="q", collections=collections)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("facets", "field"),
    [
        (["languages"], "facets[0]"),
        (["language", "metadata."], "facets[1]"),
        (["metadata." + "k" * FACET_CHARACTERS_MAX], "facets[0]"),
        (["folder", "folder"], "facets[1]"),
        ([f"metadata.{n}" for n in range(FACETS_MAX + 1)], "facets"),
    ],
)
def test_facets_that_there_are_not_are_refused(facets, field):
    asked("c", query="q", facets=["language", "source", "folder", "collection", "metadata.__proto__"])
    with pytest.raises(Invalid) as caught:
        asked("c", query="q", facets=facets)
    assert caught.value.field == field


@pytest.mark.parametrize("offset", [-1, 1000, 10**30])
def test_an_offset_out_of_bounds_is_refused(offset):
    with pytest.raises(Invalid, match="between 0 and 999"):
        SearchRequest("c", query="q", offset=offset).check()
