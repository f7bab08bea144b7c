import pytest

from penstock.kernel.errors import Invalid
from penstock.search.filters import VALUES_MAX, parse
from penstock.stores.records import Match, Prefix, Range


def test_an_empty_filter_has_no_conditions():
    assert parse({}) == ()


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
    assert parse({key: value}) == (condition,)


def test_conditions_keep_their_order():
    assert parse({"id": "a", "path_prefix": "p"}) == (Match("id", ["a"]), Prefix("path", "p"))


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
        ("path", None, "filter.path"),
        ("path", {"gte": 1}, "filter.path"),
        ("id", [], "filter.id"),
        ("id", ["a"] * (VALUES_MAX + 1), "filter.id"),
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
        parse({"language": "go", key: value})
    assert caught.value.field == field
    assert caught.value.code == "invalid"
