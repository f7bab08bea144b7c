"""Counts of values among the best chunks of a search."""

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from penstock.kernel.context import Context
from penstock.search.facets import COUNTED_CHUNKS, VALUES_MAX, VALUES_PER_DOCUMENT_MAX, count_facets
from penstock.stores.commands import UpsertPoints
from penstock.stores.data_model import ChunkPayload, RetrievedHit
from tests.clock import virtual
from tests.unit.search.test_pages import house_of, point
from tests.unit.search.test_pipeline import House

WORK = Context.background()


def hits(*payloads: dict[str, Any]) -> list[RetrievedHit]:
    made = [ChunkPayload(**{"id": f"d{n}", "chunk": 0, "text": "", **fields}) for n, fields in enumerate(payloads)]
    return [RetrievedHit(f"p{n}", -float(n), payload, {}) for n, payload in enumerate(made)]


def counted(field: str, ranked: list[RetrievedHit], *, by_document: bool = False) -> list[tuple[Any, int]]:
    (facet,) = asyncio.run(count_facets([field], ranked, by_document=by_document))
    assert facet.field == field
    return [(one.value, one.count) for one in facet.values]


def test_languages_sources_and_folders_are_counted():
    ranked = hits(
        {"language": "python", "path": "src/a/b.py", "source": "one"},
        {"language": "python", "path": "src/c.py", "source": "two"},
        {"language": "go", "path": "main.go", "source": "two"},
        {"path": "/srv/x/y"},
    )
    assert counted("language", ranked) == [("python", 2), ("go", 1)]
    assert counted("source", ranked) == [("two", 2), ("one", 1)]
    assert counted("folder", ranked) == [("src/", 2), ("/srv/", 1)]


@pytest.mark.parametrize(
    ("metadata", "key", "values"),
    [
        ({"team": "core"}, "team", ["core"]),
        ({"a": {"b": 1}}, "a.b", [1]),
        ({"a.b": 1}, "a.b", [1]),
        ({"tags": ["x", "y", "x"]}, "tags", ["x", "y"]),
        ({"a": [{"b": 1}, {"b": 2}]}, "a.b", [1, 2]),
        ({"a": {"b": 1}}, "a", []),
        ({"a": None}, "a", []),
        ({"a": "x" * 257}, "a", []),
        ({"__proto__": "x", "constructor": 1}, "__proto__", ["x"]),
        ({"": 1}, "absent", []),
    ],
)
def test_values_of_metadata_are_found_where_filters_find_them(metadata, key, values):
    assert counted(f"metadata.{key}", hits({"metadata": metadata})) == [(value, 1) for value in values]


def test_one_and_true_and_the_text_are_three_values():
    ranked = hits(*({"metadata": {"k": value}} for value in (1, True, "1", 1.0)))
    found = counted("metadata.k", ranked)
    assert sorted((type(value).__name__, count) for value, count in found) == [("bool", 1), ("int", 2), ("str", 1)]


def test_a_document_counts_once_where_hits_are_grouped():
    ranked = hits(*({"id": id, "chunk": n, "language": "python"} for n, id in enumerate("aabb")))
    assert counted("language", ranked) == [("python", 4)]
    assert counted("language", ranked, by_document=True) == [("python", 2)]


def test_values_are_bounded_and_the_most_frequent_come_first():
    rare = [{"metadata": {"k": f"v{n:03}"}} for n in range(100)]
    (facet,) = asyncio.run(count_facets(["metadata.k"], hits(*rare, {"metadata": {"k": "v099"}}), by_document=False))
    assert (len(facet.values), facet.more, facet.counted) == (VALUES_MAX, 100 - VALUES_MAX, 101)
    assert [one.value for one in facet.values[:3]] == ["v099", "v000", "v001"]
    many = {"metadata": {"k": list(range(VALUES_PER_DOCUMENT_MAX * 2))}}
    (facet,) = asyncio.run(count_facets(["metadata.k"], hits(many), by_document=False))
    assert facet.more + len(facet.values) == VALUES_PER_DOCUMENT_MAX
    (facet,) = asyncio.run(count_facets(["metadata.k"], hits(*[many] * 9), by_document=False))
    assert {one.count for one in facet.values} == {9}


@virtual
async def test_facets_are_the_same_on_every_page_and_change_no_hit():
    house = await house_of(300)
    plain = await house.search("cat", limit=10)
    assert plain.facets is msgspec.UNSET
    answers = [await house.search("cat", limit=limit, facets=("language", "metadata.k")) for limit in (1, 10, 300)]
    assert answers[1].hits == plain.hits
    assert answers[0].facets == answers[1].facets == answers[2].facets
    assert {facet.counted for facet in answers[0].facets} == {COUNTED_CHUNKS}
    following = await house.search("cat", limit=10, facets=("language", "metadata.k"), cursor=plain.next)
    assert following.facets == answers[0].facets
    assert len(answers[2].hits) == 300


@virtual
async def test_facets_go_with_groups():
    house = await House().fill()
    await house.store.run(UpsertPoints("c", [point("cat", f"cat {n}", n) for n in range(1, 4)]), WORK)
    answer = await house.search("cat", facets=("language",), group="document", limit=2)
    (facet,) = answer.facets
    assert (facet.counted, len(answer.hits)) == (4, 2)


@virtual
async def test_what_facets_do_not_read_any_more_is_no_lack_of_hits():
    house = await House().fill()
    heavy = [replace(point(f"h{n}", f"cat {n}"), payload=heavy_payload(n)) for n in range(100)]
    await house.store.run(UpsertPoints("c", heavy), WORK)
    answer = await house.search("cat", facets=("metadata.k",), limit=10)
    assert (answer.degraded, len(answer.hits)) == ([], 10)
    assert 10 < answer.facets[0].counted < 100
    assert (await house.search("cat", limit=100)).degraded == ["hits_truncated"]


def heavy_payload(n: int) -> ChunkPayload:
    return ChunkPayload(f"h{n}", 0, f"cat {n}", metadata={"k": n % 3, "much": "x" * 60_000})
