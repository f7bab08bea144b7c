import json
import re

from hypothesis import given
from hypothesis import strategies as st

from penstock.stores.backends.payload_format import (
    FACET_CHARACTERS_MAX,
    facet,
    facets,
    flatten,
    range_key,
    range_values,
)

scalars = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
metadata = st.dictionaries(
    st.text(), st.recursive(scalars | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=10)
)


def test_nested_keys_and_dotted_keys_flatten_alike():
    wanted = [("a.b", 1), ("a.b", 2)]
    assert sorted(flatten({"a": {"b": [1, 2]}})) == sorted(flatten({"a.b": [1, 2]})) == wanted


def test_null_and_empty_things_have_no_facet():
    assert facets({"a": None, "b": {}, "c": [], "d": [None, [[]]]}) == []


def test_one_is_one_point_nought_but_not_true_and_not_a_string():
    assert facet("k", 1) == facet("k", 1.0)
    assert len({facet("k", value) for value in (1, True, "1", 1.5)}) == 4


def test_path_and_value_do_not_run_into_each_other():
    assert facet('a="b', "c") != facet("a", 'b="c')


def test_a_long_value_becomes_a_digest_of_its_own():
    long = facet("k", "x" * 10_000)
    assert len(long) < FACET_CHARACTERS_MAX
    assert long != facet("k", "x" * 9_999)


def test_integers_beyond_sixty_four_bits_have_facets():
    assert facet("k", 10**40) != facet("k", 10**40 + 1)


def test_scales_hold_numbers_and_times_only():
    found = range_values({"n": 1, "f": 0.5, "b": True, "s": "text", "t": ["2024-05-01", "x", 3]})
    assert found == {"n": [1], "f": [0.5], "t": found["t"]}
    assert set(found["t"]) == {"2024-05-01T00:00:00+00:00", 3}


@given(st.text())
def test_a_scale_key_means_nothing_to_the_engine_and_one_path_only(path):
    key = range_key(path)
    assert re.fullmatch(r"[\w~%-]*", key, re.ASCII)
    assert range_key(path + ".") != key


@given(metadata)
def test_every_scalar_has_its_facet(value):
    assert set(facets(value)) == {facet(path, scalar) for path, scalar in flatten(value)}
    assert len(set(facets(value))) == len(facets(value))


@given(scalars, scalars)
def test_facets_are_equal_where_json_values_are(one, other):
    same = type(one) is type(other) or not ({type(one), type(other)} & {bool, str})
    assert (facet("k", one) == facet("k", other)) is (same and one == other)


def test_deep_metadata_needs_no_deep_stack():
    deep = json.loads('{"a":' * 900 + "1" + "}" * 900)
    assert len(facets(deep)) == 1
