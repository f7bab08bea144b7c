import pytest

from penstock.indexing.language import canonical_language
from penstock.kernel.errors import Invalid
from penstock.search.filters import (
    KEY_CHARACTERS_MAX,
    KEYS_MAX,
    LANGUAGE_CHARACTERS_MAX,
    VALUE_CHARACTERS_MAX,
    VALUES_MAX,
    parse_filter,
)
from penstock.stores.data_model import Match, Prefix, Range


def test_an_empty_filter_has_no_conditions():
    assert parse_filter({}) == ()


@pytest.mark.parametrize(
    ("key", "value", "condition"),
    [
        ("id", "a", Match("id", ["a"])),
        ("id", ["a", "b"], Match("id", ["a", "b"])),
        ("path", "", Match("path", [""])),
        ("language", "go", Match("language", ["go"])),
        ("path_prefix", "", Prefix("path", "")),
        ("path_prefix", "src/", Prefix("path", "src/")),
        ("metadata.k", "v", Match("metadata.k", ["v"])),
        ("metadata.k", True, Match("metadata.k", [True])),
        ("metadata.k", [1, 1.5, "x", False], Match("metadata.k", [1, 1.5, "x", False])),
        ("metadata.a.b", 2**64 - 1, Match("metadata.a.b", [2**64 - 1])),
        ("metadata.path_prefix", "x", Match("metadata.path_prefix", ["x"])),
        ("metadata.k", {"gte": 1, "lt": 2.5}, Range("metadata.k", gte=1, lt=2.5)),
        ("metadata.k", {"gt": "2024-05-01"}, Range("metadata.k", gt="2024-05-01T00:00:00+00:00")),
        ("metadata.k", {"lte": "2024-05-01T12:00:00+02:00"}, Range("metadata.k", lte="2024-05-01T10:00:00+00:00")),
    ],
)
def test_each_shape_has_its_condition(key, value, condition):
    assert parse_filter({key: value}) == (condition,)


def test_conditions_keep_their_order():
    assert parse_filter({"id": "a", "path_prefix": "p"}) == (Match("id", ["a"]), Prefix("path", "p"))


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("ids", "a", "filter.ids"),
        ("metadata", {"k": 1}, "filter.metadata"),
        ("metadata.", 1, "filter.metadata."),
        ("", 1, "filter."),
        ("path_prefix", 1, "filter.path_prefix"),
        ("path_prefix", ["a"], "filter.path_prefix"),
        ("id", 1, "filter.id"),
        ("language", True, "filter.language"),
        ("language", "x" * (LANGUAGE_CHARACTERS_MAX + 1), "filter.language"),
        ("language", ["go", "\u0130" * 1_000_000], "filter.language"),
        ("path", None, "filter.path"),
        ("path", {"gte": 1}, "filter.path"),
        ("id", [], "filter.id"),
        ("id", ["a"] * (VALUES_MAX + 1), "filter.id"),
        ("metadata.k", 2**64, "filter.metadata.k"),
        ("metadata.k", [1, -(2**63) - 1], "filter.metadata.k"),
        ("metadata.k", float("inf"), "filter.metadata.k"),
        ("metadata.k", {"gte": 10**400}, "filter.metadata.k.gte"),
        ("metadata.k", {"lt": float("nan")}, "filter.metadata.k.lt"),
        ("path_prefix", "x" * 4097, "filter.path_prefix"),
        ("metadata.k", "x" * (VALUE_CHARACTERS_MAX + 1), "filter.metadata.k"),
        ("metadata.k", None, "filter.metadata.k"),
        ("metadata.k", [None], "filter.metadata.k"),
        ("metadata.k", [[1]], "filter.metadata.k"),
        ("metadata.k", {}, "filter.metadata.k"),
        ("metadata.k", {"above": 1}, "filter.metadata.k.above"),
        ("metadata.k", {"gte": 1, "lt": 2, "x": 3}, "filter.metadata.k.x"),
        ("metadata.k", {"gte": True}, "filter.metadata.k.gte"),
        ("metadata.k", {"gte": None}, "filter.metadata.k.gte"),
        ("metadata.k", {"gte": [1]}, "filter.metadata.k.gte"),
        ("metadata.k", {"gte": "yesterday"}, "filter.metadata.k.gte"),
        ("metadata.k", {"gte": "2024-13-01"}, "filter.metadata.k.gte"),
        ("metadata.k", {"gte": 1, "lt": "2024-01-01"}, "filter.metadata.k"),
    ],
)
def test_each_bad_shape_names_its_field(key, value, field):
    with pytest.raises(Invalid) as caught:
        parse_filter({"language": "go", key: value})
    assert caught.value.field == field
    assert caught.value.code == "invalid"


def test_a_filter_has_so_many_keys_and_no_more():
    assert len(parse_filter({f"metadata.k{n}": n for n in range(KEYS_MAX)})) == KEYS_MAX
    with pytest.raises(Invalid, match="64 keys") as caught:
        parse_filter({f"metadata.k{n}": n for n in range(KEYS_MAX + 1)})
    assert caught.value.field == "filter"


def test_the_values_of_all_keys_count_together():
    half = list(range(VALUES_MAX // 2))
    assert len(parse_filter({"metadata.a": half, "metadata.b": half})) == 2
    with pytest.raises(Invalid, match="1000 values") as caught:
        parse_filter({"metadata.a": half, "metadata.b": half, "metadata.c": 1})
    assert caught.value.field == "filter"


@pytest.mark.parametrize("key", ["k" * 100_000, "metadata." + "k" * 100_000])
def test_a_long_key_is_refused_and_not_told_at_length(key):
    with pytest.raises(Invalid) as caught:
        parse_filter({key: 1})
    assert len(caught.value.field) + len(caught.value.detail) < 300


def test_a_key_may_be_long():
    assert parse_filter({"metadata." + "k" * (KEY_CHARACTERS_MAX - len("metadata.")): 1})


@pytest.mark.parametrize(
    ("said", "values"),
    [("Python", ["python"]), ("C++", ["cpp", "c++"]), (["Py", "PYTHON", "go"], ["python", "py", "go"])],
)
def test_a_language_is_found_by_any_of_its_names(said, values):
    assert parse_filter({"language": said}, canonical_language) == (Match("language", values),)
